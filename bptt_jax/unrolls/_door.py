"""What all unrolls share: one door, through which a layer and its arguments come in.

It lifts a cell to a layer, checks the arguments, sets leaves that are not floating
aside, gives all arrays the same varying mesh axes (`shard_map`), and compiles with the
layer and the options static.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from bptt_jax import _pytrees as trees
from bptt_jax import _shardings as shardings
from bptt_jax import layers
from bptt_jax._jax import to_varying, varying_axes
from bptt_jax.types import Cell, Layer, PyTree, Sections, Side, Unroll


class _Spec(NamedTuple):
    """Static: how a list of floating leaves and one of others make up the arguments."""

    structure: Any
    floating: tuple[bool, ...]

    def merge(self, floating: list, others: list) -> tuple:
        floats, rest = iter(floating), iter(others)
        return self.structure.unflatten(
            [next(floats if f else rest) for f in self.floating]
        )


def unroll(forward: Callable, backward: Callable) -> Unroll:
    """The unroll with the given two passes, the second registered by `jax.custom_vjp`.

    Args:
      forward: `(layer, params, carry, xs, side, **options) ->
        ((carry, ys), residuals)`.
      backward: `(layer, residuals, d_carry, d_ys, **options) ->
        (d_params, d_carry, d_xs, d_targets)`, lists of the floating leaves' cotangents.

    Returns:
      `(layer_or_cell, params, carry, xs, side=Side(), *, length=None, context=(),
      **options) -> (carry, ys)`.
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
    def core(layer, options, spec, floats, others):
        return forward(layer, *spec.merge(floats, others), **dict(options))[0]

    def core_fwd(layer, options, spec, floats, others):
        return forward(layer, *spec.merge(floats, others), **dict(options))

    def core_bwd(layer, options, spec, residuals, d_out):
        del spec
        parts = backward(layer, residuals, *d_out, **dict(options))
        return [d for part in parts for d in part], None

    core.defvjp(core_fwd, core_bwd)
    return door(core)


def door(core: Callable) -> Unroll:
    """The unroll whose values and derivatives are those of `core`.

    Args:
      core: `(layer, options, spec, floats, others) -> (carry, ys)`; `spec.merge(floats,
        others)` are params, carry, xs and side, `dict(options)` the keywords. `floats`
        are the floating leaves of the first three and of the targets, in that order: all
        that has a derivative.

    Returns:
      `(layer_or_cell, params, carry, xs, side=Side(), *, length=None, context=(),
      **options) -> (carry, ys)`.
    """

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def entry(layer, options, params, carry, xs, side):
        check(layer, params, carry, xs, side)
        params, carry, xs, side = _same_axes((params, carry, xs, side))
        carry = spread(layer, params, carry, xs, side)
        leaves, structure = jax.tree.flatten((params, carry, xs, side))
        n = len(leaves) - len(jax.tree.leaves(side.aux))  # the last field of the last
        floating = tuple(i < n and trees.is_floating(a) for i, a in enumerate(leaves))
        inner = [a for a, f in zip(leaves, floating, strict=True) if f]
        others = [a for a, f in zip(leaves, floating, strict=True) if not f]
        spec = _Spec(structure, floating)
        return in_given_shapes(
            lambda: core(layer, options, spec, inner, others),
            layer, params, carry, xs, side,
        )  # fmt: skip

    def call(
        layer, params, carry, xs, side=Side(), *, length=None, context=(), **options
    ):
        layer = lift(layer)
        arguments = arrays(params, carry, xs, side, length, context)
        refuse(layer, *arguments)
        return entry(layer, tuple(sorted(options.items())), *arguments)

    return call


def _constant(a):
    return _underived(a) if trees.is_floating(a) else a


@jax.custom_jvp
def _underived(a):
    return a


@_underived.defjvp
def _refuse_derivative(primals, tangents):
    """Called where JAX differentiates with respect to it, and nowhere else."""
    del tangents
    raise TypeError(
        f"side.aux: expected a constant, got {primals[0].dtype}{list(primals[0].shape)} "
        "that is differentiated; hooks of the backward pass read it and no output depends "
        "on it: jax.lax.stop_gradient(aux), or put what is learnt into params or targets"
    )


def of_targets(side: Side, d_targets: PyTree) -> list:
    """The cotangents at floating leaves of the targets; None: the layer reads none."""
    flat = trees.floats(side.targets, side.targets)
    if d_targets is None:
        return [jnp.zeros_like(a) for a in flat]
    return trees.floats(side.targets, d_targets)


def in_given_shapes(run: Callable, layer: Layer, params, carry, xs, side) -> Any:
    """`run()`; an error that a stretch makes is raised in the shapes of the whole."""
    try:
        return run()
    except (TypeError, ValueError) as error:
        raised = error
    if not export.is_symbolic_dim(trees.length(xs)):
        jax.eval_shape(layer.fwd, params, carry, xs, side)
    raise raised


def lift(layer: Layer | Cell) -> Layer:
    """A cell as a layer; a layer as it is."""
    hint = "; the order of arguments is (layer, params, carry, xs, side)"
    return layers.lift(layer, "layer", hint)


def arrays(params, carry, xs, side, length: int | None, context: PyTree = ()) -> tuple:
    """All leaves as arrays; in place of `xs=None` inputs `[length, ..., 0]`.

    A context is put beside the parameters that see it, where its gradient is theirs.
    """
    if not isinstance(side, Side):
        raise TypeError(f"side: expected a Side, got {type(side).__name__}")
    side = side._replace(keys=trees.typed_keys(side.keys))
    params = layers.with_context(params, context)
    params, carry, xs, side = jax.tree.map(jnp.asarray, (params, carry, xs, side))
    side = side._replace(aux=jax.tree.map(_constant, side.aux))
    if not jax.tree.leaves(xs):
        if length is None:
            raise ValueError("xs: got None, so length= must say how many steps to run")
        if length < 1:
            raise ValueError(f"length: expected at least one step, got {length}")
        states = jax.tree.leaves(carry)
        batch = states[0].shape[:-1] if states else ()
        xs = jnp.zeros((length, *batch, 0), states[0].dtype if states else jnp.float32)
    elif length is not None and length != trees.length(xs):
        raise ValueError(f"length: {length} given, but xs has {trees.length(xs)} steps")
    return params, carry, xs, side


def refuse(layer: Layer, params, carry, xs, side) -> None:
    """Refuses symbols that are none of the layer's, where their values are known."""
    given, refusal = jax.tree.leaves((xs, side.targets)), layer.refuse
    if refusal is None or all(
        trees.known(a) is None for a in given if trees.is_integer(a)
    ):
        return
    check(layer, params, carry, xs, side)
    at = params, carry, xs, side
    in_given_shapes(lambda: refusal(*at), layer, *at)


def check(
    layer: Layer | Sections, params: PyTree, carry: PyTree, xs: PyTree, side: Side
) -> None:
    """Refuses arguments that do not fit, naming the leaf, before a loop is traced."""
    shape = jax.tree.leaves(xs)[0].shape
    for path, a in jax.tree_util.tree_leaves_with_path(xs):
        name = f"xs{jax.tree_util.keystr(path)}"
        if a.ndim < 1 or a.shape[0] < 1:
            raise ValueError(
                f"{name}: expected [T, ...] with T of at least 1, got {list(a.shape)}"
            )
        if a.shape[0] != shape[0]:
            raise ValueError(
                f"{name}: expected {shape[0]} steps like other leaves, got {a.shape[0]}"
            )
    for path, a in jax.tree_util.tree_leaves_with_path(side):
        _check_side(path[0].name, f"side{jax.tree_util.keystr(path)}", a, shape)
    _check_params(layer, params)
    _check_carry(layer, carry)


def _check_side(field: str, name: str, a: jax.Array, shape: tuple[int, ...]) -> None:
    if a.ndim < 1 or a.shape[0] != shape[0]:
        raise ValueError(
            f"{name}: expected [T, ...] with the T = {shape[0]} of xs, got {list(a.shape)}"
        )
    if field in ("mask", "resets"):
        if a.dtype != bool:
            raise TypeError(f"{name}: expected bool, got {a.dtype}")
        if a.shape != shape[: a.ndim]:
            raise ValueError(
                f"{name}: expected the leading axes of xs {list(shape)}, "
                f"got {list(a.shape)}"
            )
    if field == "keys" and not (trees.is_key(a) and a.ndim == 1):
        raise TypeError(
            f"{name}: expected [T] keys, jax.random.split(jax.random.key(seed), T), "
            f"got {a.dtype}{list(a.shape)}"
        )


def spread(
    layer: Layer, params: PyTree, carry: PyTree, xs: PyTree, side: Side
) -> PyTree:
    """The carry, spread over a mesh of Explicit axes as a step returns it.

    `init_carry` knows nothing of devices; what a step returns is spread as its inputs
    are, and a loop's carry must not change.
    """
    if not any(map(shardings.explicit, jax.tree.leaves((params, carry, xs)))):
        return carry

    def after(carry):
        return layer.fwd(params, carry, *trees.cut((xs, side), 0, 1))[0]

    for _ in jax.tree.leaves(carry):  # what one leaf becomes another may be next
        carry = shardings.like(jax.eval_shape(after, carry), carry)
    return carry


def known_length(xs: PyTree) -> int:
    """T, refused where it is a symbol (`jax.export.symbolic_shape`)."""
    T = trees.length(xs)
    if export.is_symbolic_dim(T):
        raise ValueError(
            f"xs: expected a number of steps, got the symbol {T}; take unrolls.scan, or "
            "unrolls.bptt with a chunk that divides it (8*n steps and chunk=8)"
        )
    return T


@functools.cache
def _expected(layer: Layer | Sections) -> PyTree:
    return jax.eval_shape(layer.init, jax.random.key(0))


@functools.cache
def _expected_carry(layer: Layer | Sections) -> PyTree:
    """The carry of one example; None where `init_carry` makes none without a batch, or
    without a context.
    """
    try:
        return jax.eval_shape(lambda p: layer.init_carry(p, ()), _expected(layer))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def _check_carry(layer: Layer | Sections, carry: PyTree) -> None:
    """Refuses another structure; shapes are compared with what a step returns."""
    one = _expected_carry(layer)
    expected, got = jax.tree.structure(one), jax.tree.structure(carry)
    if one is not None and expected != got and (expected.num_leaves or got.num_leaves):
        raise ValueError(
            f"carry: expected the structure {expected}, as of init_carry(params, "
            f"batch_shape), got {got}"
        )


def _check_params(layer: Layer | Sections, params: PyTree) -> None:
    """Refuses parameters whose structure or shapes are not those of `layer.init`, but for
    a context, which `init` does not know.
    """
    layers.refuse_without(params)
    expected, params = map(layers.without_context, (_expected(layer), params))
    if jax.tree.structure(expected) != jax.tree.structure(params):
        raise ValueError(
            f"params: expected the structure {jax.tree.structure(expected)}, "
            f"got {jax.tree.structure(params)}"
        )
    for (path, want), got in zip(
        jax.tree_util.tree_leaves_with_path(expected),
        jax.tree.leaves(params),
        strict=True,
    ):
        if want.shape != got.shape:
            raise ValueError(
                f"params{jax.tree_util.keystr(path)}: expected {list(want.shape)}, "
                f"got {list(got.shape)}"
            )


def _same_axes(tree: PyTree) -> PyTree:
    """Under `shard_map` everything varies over the mesh axes that anything varies over."""
    axes = frozenset().union(*map(varying_axes, jax.tree.leaves(tree)))

    def cast(a):
        missing = axes - varying_axes(a)
        return to_varying(a, missing) if missing else a

    return jax.tree.map(cast, tree)
