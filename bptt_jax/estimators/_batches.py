"""What every estimator asks of a batch, and the loss that all of them share."""

from collections.abc import Callable
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import _pytrees as trees
from bptt_jax import layers, unrolls
from bptt_jax._factory import factory, functions
from bptt_jax.types import (
    Batch,
    Cell,
    Layer,
    Objective,
    PyTree,
    Sections,
    Unroll,
    Weighted,
)


def real_steps(batch: Batch) -> Array:
    """How many steps of how many examples the loss is a mean over."""
    counts = _counts(batch)
    if counts is None:
        return jnp.ones(_steps_and_examples(batch), jnp.float32).sum()
    floating = trees.is_floating(counts)
    return counts.sum(dtype=trees.at_least_float32(counts.dtype if floating else "f"))


def any_real(batch: Batch) -> Array | Literal[True]:
    """Whether any step of any example counts: a loss over none of them is no loss.

    True, and no array, where there is neither a mask nor `Weighted` targets.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import Batch, Side
    >>> bool(any_real(Batch(jnp.ones((5, 2, 3)), Side(mask=jnp.zeros((5, 2), bool)))))
    False
    """
    counts = _counts(batch)
    return True if counts is None else (counts != 0).any()


def per_real_step(total: Array, batch: Batch, steps: Array | None = None) -> Array:
    """A sum over a batch divided by its real steps; not divided where it has none.

    `steps`: how many there are, as `total_loss` has it; None: those of the batch.
    """
    steps, real = real_steps(batch) if steps is None else steps, any_real(batch)
    if real is not True:
        steps = jnp.where(real, steps, jnp.ones_like(steps))
    return total / steps.astype(total.dtype)


def _counts(batch: Batch) -> Array | None:
    """`[T, B]`, how much each step of each example counts; None: all of them alike."""
    shape, side = _steps_and_examples(batch), batch.side
    if isinstance(side.targets, Weighted):
        weights = side.targets.weights
        each = weights if weights.ndim > 1 else weights[:, None]
        counts = jnp.broadcast_to(each, shape)
    elif side.mask is not None:
        counts = jnp.ones(shape, jnp.float32)
    else:
        return None
    return counts if side.mask is None else trees.only(side.mask, counts)


def _steps_and_examples(batch: Batch) -> tuple[int, ...]:
    return jax.tree.leaves(batch.inputs)[0].shape[:2]


def with_keys(batch: Batch, key: Array) -> Batch:
    """A key for each step; they cost nothing where no layer draws."""
    keys = trees.typed_keys(batch.side.keys)
    if keys is None:
        T = jax.tree.leaves(batch.inputs)[0].shape[0]
        keys = jax.random.split(trees.typed_keys(key), T)
    return batch._replace(side=batch.side._replace(keys=keys))


def init_carry(model: Layer | Cell | Sections, params: PyTree, batch: Batch) -> PyTree:
    """The model's initial carry for the examples of a batch `[T, B, ...]`."""
    params = layers.with_context(params, batch.context)
    return model.init_carry(params, (_steps_and_examples(batch)[1],))


def cut(batch: Batch, start: int, stop: int | None) -> Batch:
    """The steps from `start` to `stop`."""
    return Batch(*trees.cut((batch.inputs, batch.side), start, stop), batch.context)


@factory
def total_loss(
    model: Layer | Cell | Sections,
    objective: Objective,
    *,
    unroll: Unroll = unrolls.bptt,
) -> Callable:
    """`(params, carry, batch) -> (carry, sum of losses, real steps)`.

    Where the objective gives a tree of losses there is a sum of each leaf. Steps are those
    that the objective sees: after a pool a sequence has one.
    """
    functions(unroll=unroll)
    model = layers.model_of(model)
    if isinstance(model, Sections):
        return _of_sections(model, objective, unroll)
    layer = layers.with_loss(model, objective)

    def total(params, carry, batch):
        at = params, carry, batch.inputs, batch.side
        carry, losses = unroll(layer, *at, **_context(batch))
        return carry, jax.tree.map(jnp.sum, losses), real_steps(batch)

    return total


def _context(batch: Batch) -> dict[str, Any]:
    """An unroll of somebody's own need not know of contexts."""
    return dict(context=batch.context) if jax.tree.leaves(batch.context) else {}


def _of_sections(model: Sections, objective: Objective, unroll: Unroll) -> Callable:
    """`total_loss` of a model whose last part says what is compared with what."""
    counted, run = layers.loss_of(model, _counted(objective)), cast(Callable, unroll)

    def total(params, carry, batch):
        at = params, carry, batch.inputs, batch.side
        carry, outcome = run(counted, *at, **_context(batch))
        losses, steps = jax.tree.map(jnp.sum, outcome)
        return carry, losses, steps

    return total


@factory
def _counted(objective: Objective) -> Callable:
    """`(ys, targets) -> (losses, ones)`: the sum of the ones is that of all that counts."""
    functions(objective=objective)

    def both(ys, targets):
        losses = objective(ys, targets)
        one = jax.tree.leaves(losses)[0]
        return losses, jnp.ones(one.shape, one.dtype if trees.is_floating(one) else "f")

    return both
