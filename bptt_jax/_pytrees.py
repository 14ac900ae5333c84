"""Pytrees of arrays with an axis of time, and their cotangents.

In a cotangent None stands at each leaf that is not floating; flat lists hold the
floating leaves alone. (`float0`, which `jax.vjp` uses there, must not enter a scan.)
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.flatten_util import ravel_pytree

PyTree = Any


def is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def is_integer(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.integer)


def at_least_float32(dtype: Any) -> Any:
    """The dtype that sums over many steps are kept in."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def widened(a: jax.Array) -> jax.Array:
    """`a` in at least float32."""
    return a.astype(at_least_float32(a.dtype))


def squares(a: jax.Array) -> jax.Array:
    """|a|² of each number: of a complex one too a real number."""
    return a.real**2 + a.imag**2 if jnp.iscomplexobj(a) else a**2


def norm(leaves: list, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """√Σ|a|² over axes and all leaves, in at least float32; its derivative at 0 is 0.

    Right wherever it can be represented, though its square may not be: what is squared is
    in units of the largest number (units that are constants XLA would multiply out).
    """
    if not leaves:
        return jnp.zeros((), jnp.float32)
    each = [part for a in map(widened, leaves) for part in _parts(a)]
    dtype = max((a.dtype for a in each), key=lambda dtype: dtype.itemsize)
    each = [a.astype(dtype) for a in each]
    largest = functools.reduce(
        jnp.maximum,
        [jnp.abs(a).max(axis, initial=0) for a in map(lax.stop_gradient, each)],
    )
    usual = (largest > 0) & jnp.isfinite(largest)
    unit = jnp.where(usual, largest, jnp.ones_like(largest))
    along = unit if axis is None else jnp.expand_dims(unit, axis)
    total = functools.reduce(jnp.add, [((a / along) ** 2).sum(axis) for a in each])
    root = jnp.sqrt(jnp.where(total == 0, jnp.ones_like(total), total))
    return unit * jnp.where(total == 0, jnp.zeros_like(total), root)


def _parts(a: jax.Array) -> tuple[jax.Array, ...]:
    """A real array, or the two of a complex one."""
    return (a.real, a.imag) if jnp.iscomplexobj(a) else (a,)


def scaled(tree: PyTree, factor: Any) -> PyTree:
    """`tree` times real numbers, rounded once to the dtype of each leaf."""

    def leaf(a):
        wide = widened(a)
        gain = jnp.asarray(factor).astype(wide.real.dtype)
        if jnp.iscomplexobj(a):
            return lax.complex(wide.real * gain, wide.imag * gain)
        return (wide * gain).astype(a.dtype)

    return jax.tree.map(leaf, tree)


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def known(a: Any) -> np.ndarray | None:
    """The values of an array where they can be read: not of one that is traced, a shape
    alone, or partly another process's.
    """
    if isinstance(a, np.ndarray | np.generic):
        return np.asarray(a)
    if not isinstance(a, jax.Array) or isinstance(a, Tracer):
        return None
    return np.asarray(a) if a.is_fully_addressable else None


def refuse_outside(name: str, kind: str, a: Any, low: float, high: float) -> None:
    """Refuses numbers outside of [low, high] where they are known, naming the first."""
    values = known(a)
    if values is None:
        return
    outside = (values < low) | (values > high)
    if outside.any():
        first = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ValueError(
            f"{name}: expected {kind}, got {values[first]} at {list(first)}"
        )


def wide(a: jax.Array) -> jax.Array:
    """Integers that have room for any size of an axis."""
    return a if a.dtype.itemsize >= 4 else a.astype(jnp.int32)


def typed_keys(keys: Any) -> Any:
    """PRNG keys, or None; legacy uint32 ones `[..., n]` become the same typed ones."""
    if keys is None or is_key(keys) or jnp.result_type(keys) != jnp.uint32:
        return keys
    of_a_key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
    if jnp.shape(keys)[-1:] != of_a_key:
        return keys
    return jax.random.wrap_key_data(jnp.asarray(keys))


def floats(like: PyTree, d: PyTree) -> list:
    """The cotangents at the floating leaves of `like`, as a list."""
    leaves, structure = jax.tree.flatten(like)
    each = structure.flatten_up_to(d)
    return [x for x, leaf in zip(each, leaves, strict=True) if is_floating(leaf)]


def fill(like: PyTree, flat: list) -> PyTree:
    """The inverse of `floats`: `like` with `flat` at floating leaves, None elsewhere."""
    leaves, structure = jax.tree.flatten(like)
    rest = iter(flat)
    return structure.unflatten([next(rest) if is_floating(a) else None for a in leaves])


def with_float0(like: PyTree, d: PyTree) -> PyTree:
    """`d` as `jax.vjp` wants it: float0 zeros at the leaves that are not floating."""
    leaves, structure = jax.tree.flatten(like)
    each = structure.flatten_up_to(d)
    return structure.unflatten(
        [
            x if is_floating(a) else np.zeros(a.shape, jax.dtypes.float0)
            for x, a in zip(each, leaves, strict=True)
        ]
    )


def without_float0(like: PyTree, d: PyTree) -> PyTree:
    return fill(like, floats(like, d))


def pullback(f: Callable, *primals: PyTree) -> tuple[PyTree, Callable]:
    """`jax.vjp` in which None stands for the cotangent of what is not floating."""
    out, pull = jax.vjp(f, *primals)

    def back(d_out: PyTree) -> tuple:
        ds = pull(with_float0(out, d_out))
        return tuple(without_float0(p, d) for p, d in zip(primals, ds, strict=True))

    return out, back


def cast(d: jax.Array, dtype: Any) -> jax.Array:
    """A cotangent in another dtype: that of a real number is the real part."""
    real = not jnp.issubdtype(dtype, jnp.complexfloating)
    return (d.real if real and jnp.iscomplexobj(d) else d).astype(dtype)


def cast_like(like: PyTree, d: PyTree) -> PyTree:
    """Each leaf of `d` in the dtype of the leaf of `like` in its place."""
    flat = [
        cast(x, a.dtype)
        for x, a in zip(floats(like, d), floats(like, like), strict=True)
    ]
    return fill(like, flat)


def cast_floating(tree: PyTree, dtype: Any) -> PyTree:
    """Floating leaves in `dtype`; complex ones in the complex dtype that goes with it."""

    def leaf(a):
        if not is_floating(a):
            return a
        if jnp.iscomplexobj(a) and not jnp.issubdtype(dtype, jnp.complexfloating):
            return a.astype(jnp.complex128 if dtype == jnp.float64 else jnp.complex64)
        return a.astype(dtype)

    return jax.tree.map(leaf, tree)


def conjugate(tree: PyTree) -> PyTree:
    """Complex leaves conjugated; others as they are."""
    return jax.tree.map(lambda a: a.conj() if jnp.iscomplexobj(a) else a, tree)


def as_reals(tree: PyTree) -> tuple[jax.Array, Callable]:
    """All numbers of a tree as one real vector, and the way back: the leaves one after
    another, of a complex one the real parts and then the imaginary ones.
    """

    def parts(a):
        return (a.real, a.imag) if jnp.iscomplexobj(a) else a

    def whole(a, part):
        return lax.complex(*part) if jnp.iscomplexobj(a) else part

    flat, unravel = ravel_pytree(jax.tree.map(parts, tree))
    return flat, lambda flat: jax.tree.map(whole, tree, unravel(flat))


def add(a: PyTree, b: PyTree) -> PyTree:
    """The sum of two cotangents, in the dtype of the first."""
    return jax.tree.map(lambda x, y: x + cast(y, x.dtype), a, b)


class Sum(NamedTuple):
    """A sum of gradients of one tree over many stretches of time, in at least float32.

    parts: what there is so far, at the floating leaves.
    """

    parts: list[jax.Array]

    @classmethod
    def zeros(cls, like: PyTree) -> "Sum":
        """The sum of no gradients of a tree."""
        leaves = floats(like, like)
        return cls([jnp.zeros_like(p, at_least_float32(p.dtype)) for p in leaves])

    def add(self, each: list[jax.Array], over: int | None = None) -> "Sum":
        """With one more gradient; `over`: an axis of many that are added."""
        each = [cast(d, t.dtype) for d, t in zip(each, self.parts, strict=True)]
        if over is not None:
            each = [d.sum(over) for d in each]
        return Sum([t + d for t, d in zip(self.parts, each, strict=True)])

    def done(self, like: PyTree) -> list[jax.Array]:
        """The sum in the dtypes of the floating leaves of the tree."""
        leaves = floats(like, like)
        return [t.astype(p.dtype) for t, p in zip(self.parts, leaves, strict=True)]


def sum_of(a: PyTree, b: PyTree) -> PyTree:
    """`add` of two cotangents of which the second may be None as a whole: all zero."""
    return a if b is None else add(a, b)


def along(like: jax.Array, a: jax.Array) -> jax.Array:
    """`a`, whose axes are the first ones of `like`, with as many axes as `like` has."""
    return a.reshape(a.shape + (1,) * (like.ndim - a.ndim))


def across(like: Any, a: Any) -> Any:
    """`a`, whose axes are the last ones of `like`, with as many axes; a number as it is.

    What `like + a` does by itself, but under `jax_numpy_rank_promotion="raise"`.
    """
    missing = jnp.ndim(like) - jnp.ndim(a)
    return jnp.expand_dims(a, tuple(range(missing))) if jnp.ndim(a) and missing else a


def where(flag: jax.Array, a: PyTree, b: PyTree) -> PyTree:
    """Selects by a flag whose axes are the first ones of every leaf."""

    def leaf(x, y):
        return jnp.where(along(x if jnp.ndim(x) > jnp.ndim(y) else y, flag), x, y)

    return jax.tree.map(leaf, a, b)


def only(flag: jax.Array, tree: PyTree) -> PyTree:
    """`tree` where the flag is True, zero elsewhere (keys, which have no zero, stay)."""

    def leaf(a):
        return a if is_key(a) else where(flag, a, jnp.zeros_like(a))

    return jax.tree.map(leaf, tree)


def length(*trees: PyTree) -> int:
    """The length of the first axis, which all leaves share."""
    return jax.tree.leaves(trees)[0].shape[0]


def cut(tree: PyTree, start: int, stop: int | None) -> PyTree:
    """The steps from `start` to `stop`; whole trees are not copied."""
    if start == 0 and (
        stop is None or all(a.shape[0] == stop for a in jax.tree.leaves(tree))
    ):
        return tree
    return jax.tree.map(lambda a: lax.slice_in_dim(a, start, stop), tree)


def steps_from(tree: PyTree, start: int | jax.Array, n: int) -> PyTree:
    """n steps from `start`, which may be traced."""
    return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, n), tree)


def write_steps(whole: PyTree, start: int | jax.Array, part: PyTree) -> PyTree:
    """The arrays with the steps from `start` on replaced."""
    return jax.tree.map(
        lambda a, p: lax.dynamic_update_slice_in_dim(a, p.astype(a.dtype), start, 0),
        whole,
        part,
    )


def fold(tree: PyTree, n: int) -> PyTree:
    """`[n·K, ...]` as `[n, K, ...]`."""
    return jax.tree.map(lambda a: a.reshape((n, a.shape[0] // n) + a.shape[1:]), tree)


def flat(tree: PyTree) -> PyTree:
    """`[n, K, ...]` as `[n·K, ...]`."""
    return jax.tree.map(
        lambda a: a.reshape((a.shape[0] * a.shape[1], *a.shape[2:])), tree
    )


def join(pieces: list) -> PyTree:
    """Pieces of time, one after another."""
    if len(pieces) == 1:
        return pieces[0]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)


def before(first: PyTree, nexts: PyTree) -> PyTree:
    """The carries before each step, from the first one and those after each step."""
    return jax.tree.map(lambda c, a: jnp.concatenate([c[None], a[:-1]]), first, nexts)
