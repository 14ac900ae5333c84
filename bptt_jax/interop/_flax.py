"""What `flax.linen.RNN` and `flax.nnx.RNN` have in common, on this project's engine."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax import cells, unrolls
from bptt_jax.interop import _layouts, files
from bptt_jax.interop._layouts import Layout
from bptt_jax.interop.weights import ELMAN, LSTM, Sizes
from bptt_jax.types import Cell, PyTree, Side

ACTIVATIONS = {
    jnp.tanh: jnp.tanh,
    lax.tanh: jnp.tanh,
    jax.nn.relu: jax.nn.relu,
    jax.nn.sigmoid: jax.nn.sigmoid,
}
"""Functions that are known to be elementwise, as the hand derivation takes them."""


class Known(NamedTuple):
    """A cell of flax as one of ours.

    cell: ours.
    params: its parameters, made of flax's (so gradients flow back to flax's).
    take, give: flax's carry as ours, and back.
    """

    cell: Cell
    params: PyTree
    take: Callable = lambda carry: carry
    give: Callable = lambda carry: carry


CARRIES = {
    LSTM: (
        lambda carry: cells.LSTMCarry(h=carry[1], c=carry[0]),
        lambda carry: (carry.c, carry.h),
    )
}
"""`take` and `give` where flax's carry, `(c, h)` of an LSTM, is not ours."""


def known(cell: Any, layout: Layout, params: dict, dtype) -> Known | None:
    """A cell of flax as one of ours; None: it has other functions, or lacks an array
    (flax says which).
    """
    kind, phi = layout.kind, known_function(cell.activation_fn)
    if not (phi is not None if kind is ELMAN else usual_gates(cell)):
        return None
    try:
        params = _layouts.ours(layout, files.flat(params, "/"))
    except KeyError:
        return None
    w_h = params["w_h"]
    if kind is ELMAN and cell.residual:  # φ(x W_x + b + h W_h + h)
        params["w_h"] = w_h + jnp.eye(w_h.shape[0], dtype=w_h.dtype)
    sizes = Sizes(params["w_x"].shape[0], w_h.shape[0], w_h.shape[0])
    ours = kind.make(sizes, phi, dtype=dtype)
    return Known(ours, params, *CARRIES.get(kind, ()))


def known_function(f: Any) -> Callable | None:
    """The function that the hand derivation takes for `f`; None: it takes none."""
    return next((ours for theirs, ours in ACTIVATIONS.items() if f is theirs), None)


def usual_gates(cell: Any) -> bool:
    """Whether gates are σ, and what they gate is tanh; an MGU has its reset."""
    gate, activation = known_function(cell.gate_fn), known_function(cell.activation_fn)
    usual = gate is jax.nn.sigmoid and activation is jnp.tanh
    return usual and getattr(cell, "reset_gate", True)


def joint_dtype(dtype: Any, carry: PyTree, *arrays: PyTree):
    """The one dtype of the arithmetic and of the state; None where there are several.

    flax casts what a product takes to `dtype`, but leaves the state in its own.
    """
    leaves = jax.tree.leaves(arrays)
    of = jnp.dtype(dtype) if dtype is not None else jnp.result_type(*leaves)
    one = all(jnp.result_type(c) == of for c in jax.tree.leaves(carry))
    return of if one and jnp.issubdtype(of, jnp.floating) else None


def hand_derived(
    rnn: Any, known_cell: Callable, params: dict | None, inputs: Array, carry: PyTree
) -> Callable | None:
    """The cell of an `RNN` through time as one of ours, flax's carry in and out.

    Its parameters are put side by side here: once a call, before time begins.

    Args:
      known_cell: `(cell, params, dtype) -> Known`, or to None.
      params: of a cell of flax by its names; None: it is none that is known.

    Returns:
      `(xs, side) -> (carry, ys)`; None: it is none of ours, or has several dtypes.
    """
    if params is None:
        return None
    dtype = joint_dtype(rnn.cell.dtype, carry, inputs, params)
    ours = None if dtype is None else known_cell(rnn.cell, params, dtype)
    if ours is None:
        return None

    def unrolled(xs: Array, side: Side):
        xs = xs if trees.is_floating(xs) else xs.astype(dtype)
        after, ys = rnn.through(ours.cell, ours.params, ours.take(carry), xs, side)
        return ours.give(after), ys

    return unrolled


@dataclasses.dataclass(frozen=True)
class Zeros:
    """Makes zeros of these shapes; equal shapes make an equal function."""

    structure: Any
    leaves: tuple

    def __call__(self, *_) -> PyTree:
        return self.structure.unflatten([jnp.zeros(*leaf) for leaf in self.leaves])


def zeros_like(tree: PyTree) -> Zeros:
    leaves, structure = jax.tree.flatten(tree)
    shapes = [
        (jnp.shape(a), jnp.float32 if trees.is_key(a) else jnp.result_type(a))
        for a in leaves
    ]
    return Zeros(structure, tuple(shapes))


def generic(step: Callable, params: PyTree, carry: PyTree) -> Cell | None:
    """The cell of a step of flax; equal steps and shapes give the same one.

    None where the step has no hash: it holds an array, or another thing that changes.
    """
    try:
        hash(step)
    except TypeError:
        return None
    return cells.from_step(step, zeros_like(params), zeros_like(carry))


def closes_over_arrays(held: Iterable) -> bool:
    """Whether a function among what a cell holds has an array, traced or not, in it.

    Such an array is no argument of the step, so no derivative of ours would see it.
    """
    closures = [c for f in held for c in getattr(f, "__closure__", None) or ()]
    return any(isinstance(c.cell_contents, jax.Array) for c in closures)


def refuse(through: Callable, why: str) -> None:
    """Time will be flax's own scan, which no unroll of ours can be asked for."""
    if through is not unrolls.bptt:
        raise ValueError(
            f"through: expected the default (unrolls.bptt), since {why} and time is "
            f"therefore flax's own scan, got {through!r}"
        )


class Order(NamedTuple):
    """Where the time of an array is, and in which order it is run.

    time_axis: of inputs and outputs.
    batch: the batch axes' lengths.
    seq_lengths: integers, one for each sequence; None: all have all steps.
    """

    time_axis: int
    batch: tuple[int, ...]
    seq_lengths: Array | None
    reverse: bool
    keep_order: bool

    def run(self, unrolled: Callable, inputs: Array) -> tuple[PyTree, PyTree]:
        """`unrolled: (xs [T, *batch, ...], side) -> (carry, ys)`, in this order."""
        xs = jnp.moveaxis(inputs, self.time_axis, 0)
        side, lengths = Side(), self.seq_lengths
        if lengths is not None:
            side = Side(mask=unrolls.sequence_mask(lengths, xs.shape[0]))
        carry, ys = unrolled(flip(xs, lengths) if self.reverse else xs, side)

        def outward(ys):
            back = self.reverse and self.keep_order
            return jnp.moveaxis(flip(ys, lengths) if back else ys, 0, self.time_axis)

        return carry, jax.tree.map(outward, ys)


def call(
    rnn: Any, inputs: Array, carry: PyTree, seq_lengths, *, begin: Callable,
    unrolled: Callable, otherwise: Callable, **given,
) -> Any:  # fmt: skip
    """`RNN.__call__` of either half of flax.

    Args:
      carry: before the first step; None: that of `begin`, `(shape of x_t) -> carry`.
      unrolled: `(inputs, carry) -> (xs, side) -> (carry, ys)`, or to None where time is to
        be flax's own scan.
      otherwise: flax's own `__call__`.
      given: options of the call; those that are None are the module's attributes.
    """
    inputs = jnp.asarray(inputs)
    options = {
        name: getattr(rnn, name) if own is None else own for name, own in given.items()
    }
    with_carry = options.pop("return_carry")
    here = order_of(inputs, rnn.cell.num_feature_axes, seq_lengths, **options)
    if carry is None:
        shape = list(inputs.shape)
        del shape[here.time_axis]
        carry = begin(tuple(shape))
    run = unrolled(inputs, carry)
    if run is None:
        return otherwise(
            inputs, initial_carry=carry, return_carry=with_carry,
            seq_lengths=seq_lengths, **options,
        )  # fmt: skip
    carry, ys = here.run(run, inputs)
    return (carry, ys) if with_carry else ys


def order_of(
    inputs: Array, feature_axes: int, seq_lengths, time_major, reverse, keep_order
) -> Order:
    """Refuses inputs and lengths that do not fit."""
    axis = 0 if time_major else inputs.ndim - feature_axes - 1
    if inputs.ndim <= feature_axes:
        raise ValueError(
            f"inputs: expected an axis of time beside {feature_axes} of features, got "
            f"{list(inputs.shape)}"
        )
    batch = inputs.shape[1:-feature_axes] if time_major else inputs.shape[:axis]
    if seq_lengths is not None:
        seq_lengths = jnp.asarray(seq_lengths)
        if seq_lengths.shape != batch:
            raise ValueError(
                f"seq_lengths: expected {list(batch)}, one for each sequence, got "
                f"{list(seq_lengths.shape)}"
            )
    return Order(axis, batch, seq_lengths, bool(reverse), bool(keep_order))


def flip(xs: Array, seq_lengths: Array | None) -> Array:
    """`[T, *batch, ...]` from the last real step to the first, the padding after it."""
    if seq_lengths is None:
        return jnp.flip(xs, 0)
    T = xs.shape[0]
    steps = jnp.arange(T).reshape((T,) + (1,) * seq_lengths.ndim)
    order = (seq_lengths - 1 - steps) % T
    return jnp.take_along_axis(xs, trees.along(xs, order), 0)
