"""Estimators: ways to get the gradient of a model on a batch. See `types.Estimator`.

The loss is the sum over steps and examples of the objective, divided by how many of them
are real: those the mask leaves, or the sum of the weights of `Weighted` targets.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from bptt_jax import _pytrees as trees
from bptt_jax import layers, unrolls
from bptt_jax._factory import factory
from bptt_jax._processes import auto
from bptt_jax.types import (
    Batch,
    Estimator,
    Layer,
    Objective,
    PyTree,
    Unroll,
    Weighted,
)


def real_steps(batch: Batch) -> Array:
    """How many steps of how many examples the loss is a mean over."""
    shape = jax.tree.leaves(batch.inputs)[0].shape[:2]
    counts = jnp.ones(shape, jnp.float32)
    if isinstance(batch.side.targets, Weighted):
        weights = batch.side.targets.weights
        counts = jnp.broadcast_to(trees.along(counts, weights), shape)
    if batch.side.mask is not None:
        counts = trees.only(batch.side.mask, counts)
    return counts.sum()


def with_keys(batch: Batch, key: Array) -> Batch:
    """A key for each step; they cost nothing where no layer draws."""
    if batch.side.keys is not None:
        return batch
    keys = jax.random.split(key, jax.tree.leaves(batch.inputs)[0].shape[0])
    return batch._replace(side=batch.side._replace(keys=keys))


def init_carry(model: Layer, params: PyTree, batch: Batch) -> PyTree:
    """The model's initial carry for the examples of a batch `[T, B, ...]`."""
    return model.init_carry(params, (jax.tree.leaves(batch.inputs)[0].shape[1],))


@factory
def total_loss(
    model: Layer, objective: Objective, *, unroll: Unroll = unrolls.bptt
) -> Callable:
    """`(params, carry, batch) -> (carry, sum of losses, real steps)`."""
    layer = layers.with_loss(model, objective)

    def total(params, carry, batch):
        carry, losses = unroll(layer, params, carry, batch.inputs, batch.side)
        return carry, losses.sum(), real_steps(batch)

    return total


@factory
def exact(
    model: Layer, objective: Objective, *, unroll: Unroll = unrolls.bptt
) -> Estimator:
    """The exact gradient of each batch by itself; a learned initial carry gets its own.

    Args:
      model: its outputs go to the objective.
      objective: see `bptt_jax.objectives`.
      unroll: how time is run and the gradient computed.

    Returns:
      An estimator without a state: batches do not know of each other.
    """
    total = total_loss(model, objective, unroll=unroll)

    def init(params, batch):
        del params, batch
        return ()

    def grad(params, state, batch, key):
        batch = with_keys(batch, key)

        def loss(params):
            _, losses, steps = total(params, init_carry(model, params, batch), batch)
            return losses / steps.astype(losses.dtype)

        value, grads = jax.value_and_grad(loss)(params)
        return value, grads, state, dict(steps=real_steps(batch))

    return Estimator(init, grad)


class Recent(NamedTuple):
    """What a stream of overlapping windows hands on.

    carry: the state before the steps of `batch`.
    batch: the last window - stride steps, all with a mask and keys.
    """

    carry: PyTree
    batch: Batch


@factory
def stream(
    model: Layer,
    objective: Objective,
    *,
    unroll: Unroll = unrolls.bptt,
    window: int | None = None,
    stride: int | None = None,
) -> Estimator:
    """Truncated BPTT over consecutive batches: the carry is handed on, the gradient not.

    Each batch continues the one before. Without `window` its gradient reaches back to
    its own first step (Williams, Peng 1990, with h = h' = T). With `window` and `stride`
    every `stride` steps are a block whose losses reach back `window` steps, into earlier
    batches too (`unrolls.truncated`).

    Args:
      model, objective: as of `exact`.
      unroll: as of `exact`; not given where `window` is.
      window: steps that a loss reaches back, h.
      stride: steps of a block, h'; divides `window` and the steps of a batch. None:
        `window`.

    Returns:
      An estimator whose state is the carry; where stride < window, a `Recent`, and the
      last window - stride steps of the past are run again with each batch, and the steps
      of a batch a second time without a gradient.
    """
    if window is None:
        if stride is not None:
            raise ValueError(f"window: expected a number where stride is {stride}")
        return _consecutive(model, objective, unroll)
    if unroll is not unrolls.bptt:
        raise ValueError("unroll: expected none where window is given")
    if stride is not None and (stride < 1 or window % stride):
        raise ValueError(
            f"stride: expected a divisor of the window of {window} steps, got {stride}"
        )
    if stride not in (None, window):
        return _overlapping(model, objective, window, stride)
    cut = functools.partial(unrolls.truncated, window=window)
    return _consecutive(model, objective, cut)


def _consecutive(model: Layer, objective: Objective, unroll: Unroll) -> Estimator:
    total = total_loss(model, objective, unroll=unroll)

    def init(params, batch):
        return init_carry(model, params, batch)

    def grad(params, state, batch, key):
        batch = with_keys(batch, key)

        def loss(params):
            carry, losses, steps = total(params, state, batch)
            return losses / steps.astype(losses.dtype), carry

        (value, carry), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, grads, jax.lax.stop_gradient(carry), dict(steps=real_steps(batch))

    return Estimator(init, grad)


def _overlapping(
    model: Layer, objective: Objective, window: int, stride: int
) -> Estimator:
    layer, overlap = layers.with_loss(model, objective), window - stride
    unroll = functools.partial(unrolls.truncated, window=window, stride=stride)

    def init(params, batch):
        """No steps yet: as many as are handed on, masked."""
        batch = _whole(with_keys(batch, jax.random.key(0)))
        indices = jnp.arange(overlap) % trees.length(batch.inputs)
        past = jax.tree.map(lambda a: a[indices], batch)
        none = jax.tree.map(jnp.zeros_like, (past.side.mask, past.side.resets))
        side = past.side._replace(mask=none[0], resets=none[1])
        carry = init_carry(model, params, batch)
        return Recent(carry, past._replace(side=side))

    def grad(params, state, batch, key):
        batch = _whole(with_keys(batch, key))
        T = trees.length(batch.inputs)
        if T % stride:
            raise ValueError(
                f"batch: expected a multiple of the stride of {stride} steps, got {T}"
            )
        joined = jax.tree.map(lambda *a: jnp.concatenate(a), state.batch, batch)

        def loss(params):
            at = (layer, params, state.carry, joined.inputs, joined.side)
            losses = unroll(*at)[1][overlap:].sum()
            return losses / real_steps(batch).astype(losses.dtype)

        value, grads = jax.value_and_grad(loss)(params)
        first = trees.cut(joined, 0, T)
        carry, _ = unrolls.bptt(layer, params, state.carry, *first)
        recent = Recent(carry, jax.tree.map(lambda a: a[T:], joined))
        return value, grads, recent, dict(steps=real_steps(batch))

    return Estimator(init, grad)


def _whole(batch: Batch) -> Batch:
    """With a mask, which the steps before the first are told by."""
    if batch.side.mask is not None:
        return batch
    shape = jax.tree.leaves(batch.inputs)[0].shape[:2]
    return batch._replace(side=batch.side._replace(mask=jnp.ones(shape, bool)))


@factory
def data_parallel(estimator: Estimator, mesh: Mesh) -> Estimator:
    """An estimator whose batches are spread over devices, of one process or of many.

    Each device has a part of the examples and the gradient of their losses by itself;
    the parts are added up once for each batch, weighted by their real steps, so the
    result is that of the estimator on the whole batch, to rounding. What is drawn for
    each step (dropout) is another on each device.

    Args:
      estimator: `exact`, or `stream` without a stride; its state has the examples first.
      mesh: of one axis, whose size divides the examples of a batch.

    Returns:
      An estimator; params and gradients are on every device.

    Cost: the gradient's time on a part of the batch, and one sum over all devices of as
    many numbers as there are parameters.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, estimators, models, objectives, tasks
    >>> model = models.features((cells.gru(2, 8),), 1, 8)
    >>> estimator = estimators.exact(model, objectives.squared_error)
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> parallel = estimators.data_parallel(estimator, mesh)
    >>> task, params = tasks.adding(batch=4, T=6), model.init(jax.random.key(0))
    >>> batch = task.train.batch(jnp.int32(0), jax.random.key(1))
    >>> loss, grads, _, _ = parallel.grad(params, (), batch, jax.random.key(2))
    """
    (axis,), mesh = mesh.axis_names, auto(mesh)
    whole, examples, by_time = (PartitionSpec(), PartitionSpec(axis),
                                PartitionSpec(None, axis))  # fmt: skip

    def part(params, state, batch, key):
        key = jax.random.fold_in(key, lax.axis_index(axis))
        loss, grads, state, metrics = estimator.grad(params, state, batch, key)
        steps, total = metrics["steps"], lax.psum(metrics["steps"], axis)

        def summed(a):  # a part without a real step has no loss
            share = (steps / total).astype(a.dtype)
            return lax.psum(jnp.where(steps > 0, a * share, jnp.zeros_like(a)), axis)

        loss, grads = jax.tree.map(summed, (loss, grads))
        return loss, grads, state, dict(steps=total)

    def grad(params, state, batch, key):
        count = jax.tree.leaves(batch.inputs)[0].shape[1]
        if count % mesh.size:
            raise ValueError(
                f"batch: expected a multiple of the mesh's {mesh.size} devices, got "
                f"{count} examples"
            )
        spread = jax.tree.map(lambda a: by_time if a.ndim > 1 else whole, batch)
        in_specs = whole, examples, spread, whole
        out_specs = whole, whole, examples, whole
        # the sum over devices is the one above, so JAX need not find where it belongs
        return jax.shard_map(
            part, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )(params, state, batch, key)

    return Estimator(estimator.init, grad)
