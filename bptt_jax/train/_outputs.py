"""What a model says of somebody's sequences, each by itself.

Sequences of like lengths go through one program, of so many rows and so many steps. Which
program that is depends on a sequence's own length alone, so that its outputs do not depend
on what else was asked for.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import _pytrees as trees
from bptt_jax import layers, tasks, unrolls
from bptt_jax.types import Layer, PyTree, Sections, Side

ROWS = 32
"""Of a program; some are empty."""
SHORTEST = 8
"""Steps of the shortest program."""


def bucket(length: int) -> int:
    """Steps of the program that a sequence goes through: 8, 12, 16, 24, 32, 48, …

    >>> [bucket(n) for n in (1, 8, 9, 13, 100)]
    [8, 8, 12, 16, 128]
    """
    n = SHORTEST
    while n < length:
        n = n * 3 // 2 if n & (n - 1) == 0 else n // 3 * 4
    return n


def outputs(
    model: Layer | Sections,
    params: PyTree,
    xs: tasks.Sequences,
    per_step: bool,
    of_ys: Callable | None = None,
    context: PyTree = None,
) -> np.ndarray:
    """Outputs of all steps one after another, `[M, O]`, or of last steps, `[N, O]`.

    Args:
      xs: as the model sees them.
      per_step: whether those of each step are wanted.
      of_ys: what is made of outputs on the device, `[..., O] -> [...]`; None: nothing.
      context: of each sequence, leaves `[N, ...]`; None: there is none.
    """
    found: np.ndarray | None = None
    total = int(xs.lengths.sum()) if per_step else len(xs.lengths)
    for rows, T in _batches(xs.lengths):
        there = rows >= 0
        lengths = np.where(there, xs.lengths[rows], 1).astype(np.int32)
        at = params, xs.padded(rows, T), lengths, tasks.rows_of(context, rows)
        ys = _program(model, per_step, of_ys, *at)
        ys = np.asarray(ys)
        if found is None:
            found = np.zeros((total, *ys.shape[1 + per_step :]), ys.dtype)
        if not per_step:
            found[rows[there]] = ys[there]
            continue
        for i in np.flatnonzero(there):
            begin, n = xs.begins[rows[i]], lengths[i]
            found[begin : begin + n] = ys[:n, i]
    assert found is not None
    return found


def _batches(lengths: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Numbers of sequences `[ROWS]`, -1 where there is none, and steps."""
    steps = np.array([bucket(n) for n in lengths])
    for T in np.unique(steps):
        members = np.flatnonzero(steps == T)
        for start in range(0, len(members), ROWS):
            some = members[start : start + ROWS]
            yield np.pad(some, (0, ROWS - len(some)), constant_values=-1), int(T)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _program(model, per_step, of_ys, params, xs, lengths, context):
    """`[T, ROWS, …]`, or of the last real steps `[ROWS, …]`."""
    mask = unrolls.sequence_mask(lengths, trees.length(xs))
    params = layers.with_context(params, context)
    carry = model.init_carry(params, (len(lengths),))
    _, ys = unrolls.bptt(model, params, carry, xs, Side(mask=mask))
    if isinstance(model, Sections) and len(ys) != trees.length(xs):
        if per_step:
            raise ValueError(
                f"model: expected outputs of each step, its sections make {len(ys)} of "
                f"{trees.length(xs)}"
            )
        ys = ys[-1]
    elif not per_step:
        ys = ys[lengths - 1, jnp.arange(len(lengths), dtype=lengths.dtype)]
    return ys if of_ys is None else of_ys(ys)
