"""A linear map whose transpose is given, not derived.

    y = A(r) x        apply(r, x) -> y        transpose(r, d_y) -> A(r)ᵀ d_y

JAX has `jax.custom_derivatives.linear_call` for this, without a rule for `vmap` and
without derivatives with respect to r. Here is the same with both, as a primitive of the
documented interface for extensions (`jax.extend.core`, `jax.interpreters`). Its rules:

    (1)  derivative along x alone        A(r) ẋ, once more such a map
    (2)  along r, too                    that of `apply`, differentiated by JAX
    (3)  transpose                       the map with `apply` and `transpose` swapped
    (4)  a batch of x, of r or of both   the map with both functions under `jax.vmap`
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


class Map(NamedTuple):
    """Static. Both functions `(residuals, arguments) -> results`, lists of arrays.

    They are compared where programs are kept: equal ones must do the same.
    """

    apply: Callable
    transpose: Callable


def linear(map: Map, residuals: list, arguments: list, like: list) -> list:
    """`map.apply(residuals, arguments)`; `like` has the shapes and dtypes it returns."""
    kinds = tuple(jax.typeof(a) for a in like)
    return _linear.bind(*residuals, *arguments, map=map, n=len(residuals), kinds=kinds)


_linear = Primitive("bptt_jax_linear")
_linear.multiple_results = True


@_linear.def_abstract_eval
def _kinds(*_, map, n, kinds):
    del map, n
    return kinds


def _apply(*args, map, n, kinds):
    del kinds
    return map.apply(list(args[:n]), list(args[n:]))


def _jvp(primals, tangents, *, map, n, kinds):
    if all(isinstance(t, ad.Zero) for t in tangents[:n]):  # (1)
        along = [ad.instantiate_zeros(t) for t in tangents[n:]]
        bind = functools.partial(_linear.bind, *primals[:n], map=map, n=n, kinds=kinds)
        return bind(*primals[n:]), bind(*along)
    moving = [i for i, t in enumerate(tangents) if not isinstance(t, ad.Zero)]

    def of(moved):
        args = list(primals)
        for i, a in zip(moving, moved, strict=True):
            args[i] = a
        return map.apply(args[:n], args[n:])

    return jax.jvp(
        of, ([primals[i] for i in moving],), ([tangents[i] for i in moving],)
    )


def _transpose(d_results, *args, map, n, kinds):
    del kinds
    residuals, arguments = args[:n], args[n:]
    unknown = [ad.is_undefined_primal(a) for a in arguments]
    d_arguments = _linear.bind(
        *residuals,
        *(ad.instantiate_zeros(d) for d in d_results),
        map=Map(map.transpose, map.apply),
        n=n,
        kinds=tuple(
            a.aval if u else jax.typeof(a)
            for a, u in zip(arguments, unknown, strict=True)
        ),
    )
    wanted = [d if u else None for d, u in zip(d_arguments, unknown, strict=True)]
    return [None] * n + wanted


@dataclasses.dataclass(frozen=True)
class _Batched:
    """A function of residuals, mapped where `axes` has an axis, and of mapped arguments."""

    f: Callable
    axes: tuple[int | None, ...]

    def __call__(self, residuals, arguments):
        return jax.vmap(self.f, (list(self.axes), 0))(residuals, arguments)


def _batch(args, axes, *, map, n, kinds):
    del kinds
    size = next(a.shape[i] for a, i in zip(args, axes, strict=True) if i is not None)
    residuals = list(args[:n])
    arguments = [
        batching.bdim_at_front(a, i, size)
        for a, i in zip(args[n:], axes[n:], strict=True)
    ]
    batched = Map(*(_Batched(f, tuple(axes[:n])) for f in map))
    kinds = jax.make_jaxpr(batched.apply)(residuals, arguments).out_avals
    results = _linear.bind(*residuals, *arguments, map=batched, n=n, kinds=tuple(kinds))
    return results, [0] * len(results)


_linear.def_impl(jax.jit(_apply, static_argnames=("map", "n", "kinds")))
ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transpose
batching.primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_apply, multiple_results=True))
