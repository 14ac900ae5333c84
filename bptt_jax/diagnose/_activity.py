"""What units do: how large states are, which gates are saturated, which units are dead."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bptt_jax import _pytrees as trees
from bptt_jax import cells, estimators, layers, unrolls
from bptt_jax.types import Batch, Cell, Layer, PyTree, Seen


class Activity(NamedTuple):
    """Of one recurrent layer, over the real steps of a batch.

    state_norms: a carry's leaves as `[T, B]`, norms over units, before each step.
    means, deviations: a carry's leaves as `[H]`, over steps and examples.
    dead: the same as bool: units that never leave one value by more than `tolerance`.
    low, high: gate -> `[H]`, the share of steps in which it is in the lowest and the
        highest tenth of its range, (0, 1) or, for candidates, (-1, 1); {} where the
        cell names no gates (`types.Gates`), or complex ones, which have no such range.
    """

    state_norms: PyTree
    means: PyTree
    deviations: PyTree
    dead: PyTree
    low: dict[str, Array]
    high: dict[str, Array]


CANDIDATES = ("g", "n")  # in (-1, 1), by the field's names; all others are in (0, 1)


def _gates_of(seen: Seen) -> dict[str, Array]:
    us = seen.cell.vjp.project(seen.params, seen.xs)
    return cells.named_gates(seen.cell, seen.params, seen.carries, us)


def see_gates(seen: Seen):
    """The watch of named gates alone."""
    return unrolls.contract(seen), _gates_of(seen)


def _see(seen: Seen):
    return unrolls.contract(seen), (seen.carries, _gates_of(seen))


@functools.partial(jax.jit, static_argnames=("model", "chunk"))
def activity(
    model: Layer | Cell,
    params: PyTree,
    batch: Batch,
    *,
    carry: PyTree = None,
    tolerance: float = 1e-6,
    chunk: int | None = None,
) -> list[Activity]:
    """States and gates of every recurrent layer of a model on a batch.

    Args:
      model: a cell, or a layer with recurrent parts.
      params: of the model.
      batch: inputs `[T, B, ...]`; masked steps do not count.
      carry: the state before the first step; None: the model's initial one.
      tolerance: below which a unit's largest deviation from its mean is none.
      chunk: as of `unrolls.bptt`.

    Returns:
      An `Activity` for each recurrent layer.

    Cost: a forward and a backward pass; memory O(T·B·H) for states and for each gate.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, diagnose, models, tasks
    >>> task, model = tasks.adding(batch=4, T=20), models.features((cells.gru(2, 8),), 1, 8)
    >>> batch = task.train.batch(jnp.int32(0), jax.random.key(1))
    >>> (layer,) = diagnose.activity(model, model.init(jax.random.key(0)), batch)
    >>> sorted(layer.low), layer.dead.shape
    (['n', 'r', 'z'], (8,))
    """
    model = layers.lift(model, "model")
    seen, real = watched(model, params, batch, carry, chunk, _see)
    return [_of_layer(*at, real, tolerance) for at in seen]


def watched(model, params, batch: Batch, carry, chunk, watch):
    """What the watch shows of each recurrent part, and bool `[T, B]`, which steps are real."""
    carry = estimators.init_carry(model, params, batch) if carry is None else carry
    (last, ys), back = unrolls.pullback(
        model, params, carry, batch.inputs, batch.side,
        watch=watch, chunk=chunk, context=batch.context,
    )  # fmt: skip
    seen = back(*jax.tree.map(jnp.zeros_like, (last, ys))).seen
    shape = jax.tree.leaves(batch.inputs)[0].shape[:2]
    real = jnp.ones(shape, bool) if batch.side.mask is None else batch.side.mask
    return seen, real


def _of_layer(carries, gates, real, tolerance) -> Activity:
    count = real.sum().astype(jnp.float32)

    def mean(a):
        wide = trees.widened(a)
        return trees.only(real, wide).sum((0, 1)) / count.astype(wide.dtype)

    def deviation(d):
        norm = trees.norm([d], (0, 1))
        return norm / jnp.sqrt(count).astype(norm.dtype)

    means = jax.tree.map(mean, carries)
    apart = jax.tree.map(
        lambda a, m: trees.only(real, a.astype(m.dtype) - m[None, None]), carries, means
    )
    deviations = jax.tree.map(deviation, apart)
    dead = jax.tree.map(lambda d: jnp.abs(d).max((0, 1)) <= tolerance, apart)
    norms = jax.tree.map(lambda a: trees.norm([a], -1), carries)

    def share(above: bool):
        def of(name, a):
            unit = (a + 1) / 2 if name in CANDIDATES else a
            flag = unit > 0.9 if above else unit < 0.1
            return mean(flag.astype(jnp.float32))

        return {name: of(name, a) for name, a in gates.items() if jnp.isrealobj(a)}

    return Activity(norms, means, deviations, dead, share(False), share(True))


class Clipping(NamedTuple):
    """How often clipping by global norm acted, over updates.

    share: of the updates.
    factor: the mean of what a clipped gradient was multiplied with; 1 where none was.
    largest: the largest norm.
    """

    share: float
    factor: float
    largest: float


def clipping(grad_norms: np.ndarray, max_norm: float) -> Clipping:
    """How often a gradient's norm was above the one it is clipped to.

    Args:
      grad_norms: `[N]`, before clipping, as `metrics.jsonl` has them.
      max_norm: what `train.clip_by_global_norm` (or optax's) was given.

    >>> from bptt_jax import diagnose
    >>> diagnose.clipping([0.5, 2.0, 4.0, 1.0], 1.0)
    Clipping(share=0.5, factor=0.375, largest=4.0)
    """
    norms = np.asarray(grad_norms, float)
    if norms.ndim != 1 or not norms.size:
        raise ValueError(f"grad_norms: expected [N], got {list(norms.shape)}")
    over = norms[norms > max_norm]
    factor = float((max_norm / over).mean()) if over.size else 1.0
    return Clipping(over.size / norms.size, factor, float(norms.max()))
