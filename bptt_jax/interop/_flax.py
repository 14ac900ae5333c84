"""What `flax.linen.RNN` and `flax.nnx.RNN` have in common, on this project's engine."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax import cells, unrolls
from bptt_jax.types import Cell, PyTree, Side

ACTIVATIONS = {
    jnp.tanh: jnp.tanh,
    lax.tanh: jnp.tanh,
    jax.nn.relu: jax.nn.relu,
    jax.nn.sigmoid: jax.nn.sigmoid,
}
"""Functions that are known to be elementwise, as the hand derivation takes them."""


def chosen(given, own):
    """An option of the call, or where it is None that of the module."""
    return own if given is None else given


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


def elman(params: dict, activation: Callable, residual: bool, dtype) -> Known | None:
    """`φ(x W_x + b + h W_h)`; with `residual` `… + h`, so the weight is W_h + 1."""
    phi, w_h = known_function(activation), params["w_h"]
    if phi is None:
        return None
    if residual:
        w_h = w_h + jnp.eye(w_h.shape[0], dtype=w_h.dtype)
    sizes = jnp.shape(params["w_x"])
    cell = cells.elman(*sizes, activation=phi, dtype=dtype)
    return Known(cell, params | dict(w_h=w_h))


def lstm(params: dict, dtype) -> Known:
    """Gates in the order i, f, g, o; flax's carry is `(c, h)`."""
    n_in, n_hidden = params["w_x"].shape[0], params["w_h"].shape[0]
    return Known(
        cells.lstm(n_in, n_hidden, dtype=dtype),
        params,
        lambda carry: cells.LSTMCarry(h=carry[1], c=carry[0]),
        lambda carry: (carry.c, carry.h),
    )


def gru(params: dict, dtype) -> Known:
    """Gates in the order r, z, n, the reset gate after the recurrent product."""
    n_in, n_hidden = params["w_x"].shape[0], params["w_h"].shape[0]
    return Known(cells.gru(n_in, n_hidden, dtype=dtype), params)


def mgu(params: dict, dtype) -> Known:
    """Gate and candidate in the order f, n, the gate after the recurrent product."""
    n_in, n_hidden = params["w_x"].shape[0], params["w_h"].shape[0]
    return Known(cells.mgu(n_in, n_hidden, dtype=dtype), params)


def known_function(f: Any) -> Callable | None:
    """The function that the hand derivation takes for `f`; None: it takes none."""
    return next((ours for theirs, ours in ACTIVATIONS.items() if f is theirs), None)


def usual_gates(cell: Any) -> bool:
    """Whether gates are σ and what they gate is tanh."""
    gate, activation = known_function(cell.gate_fn), known_function(cell.activation_fn)
    return gate is jax.nn.sigmoid and activation is jnp.tanh


def joint_dtype(dtype: Any, carry: PyTree, *arrays: PyTree):
    """The one dtype of the arithmetic and of the state; None where there are several.

    flax casts what a product takes to `dtype`, but leaves the state in its own.
    """
    leaves = jax.tree.leaves(arrays)
    of = jnp.dtype(dtype) if dtype is not None else jnp.result_type(*leaves)
    one = all(jnp.result_type(c) == of for c in jax.tree.leaves(carry))
    return of if one and jnp.issubdtype(of, jnp.floating) else None


def hand_derived(known: Known, through, carry, xs: Array, side: Side, dtype):
    """`known` through time, with flax's carry in and out."""
    xs = xs if trees.is_floating(xs) else xs.astype(dtype)
    carry, ys = through(known.cell, known.params, known.take(carry), xs, side)
    return known.give(carry), ys


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


def refuse(through: Callable, why: str) -> None:
    """Time will be flax's own scan, which no unroll of ours can be asked for."""
    if through is not unrolls.bptt:
        raise ValueError(
            f"through: expected the default (unrolls.bptt), since {why} and time is "
            f"therefore flax's own scan, got {through!r}"
        )


class Layout(NamedTuple):
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
        """`unrolled: (xs [T, *batch, ...], side) -> (carry, ys)`, in this layout."""
        xs = jnp.moveaxis(inputs, self.time_axis, 0)
        side, lengths = Side(), self.seq_lengths
        if lengths is not None:
            side = Side(mask=unrolls.sequence_mask(lengths, xs.shape[0]))
        carry, ys = unrolled(flip(xs, lengths) if self.reverse else xs, side)

        def outward(ys):
            back = self.reverse and self.keep_order
            return jnp.moveaxis(flip(ys, lengths) if back else ys, 0, self.time_axis)

        return carry, jax.tree.map(outward, ys)


def layout(
    inputs: Array, feature_axes: int, seq_lengths, time_major, reverse, keep_order
) -> Layout:
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
    return Layout(axis, batch, seq_lengths, bool(reverse), bool(keep_order))


def flip(xs: Array, seq_lengths: Array | None) -> Array:
    """`[T, *batch, ...]` from the last real step to the first, the padding after it."""
    if seq_lengths is None:
        return jnp.flip(xs, 0)
    T = xs.shape[0]
    steps = jnp.arange(T).reshape((T,) + (1,) * seq_lengths.ndim)
    order = (seq_lengths - 1 - steps) % T
    return jnp.take_along_axis(xs, trees.along(xs, order), 0)
