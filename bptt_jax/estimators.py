"""Estimators: ways to get the gradient of a model on a batch. See `types.Estimator`.

The loss is the sum over steps and examples of the objective, divided by how many of them
are real: those the mask leaves, or the sum of the weights of `Weighted` targets.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import _pytrees as trees
from bptt_jax import layers, unrolls
from bptt_jax._factory import factory
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


def _with_keys(batch: Batch, key: Array) -> Batch:
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
        batch = _with_keys(batch, key)

        def loss(params):
            _, losses, steps = total(params, init_carry(model, params, batch), batch)
            return losses / steps.astype(losses.dtype)

        value, grads = jax.value_and_grad(loss)(params)
        return value, grads, state, dict(steps=real_steps(batch))

    return Estimator(init, grad)


@factory
def stream(
    model: Layer, objective: Objective, *, unroll: Unroll = unrolls.bptt
) -> Estimator:
    """Truncated BPTT over consecutive batches: the carry is handed on, the gradient not.

    Each batch continues the one before; its gradient reaches back to its own first step
    (Williams, Peng 1990, with k1 = k2 = T). Arguments as of `exact`.

    Returns:
      An estimator whose state is the carry.
    """
    total = total_loss(model, objective, unroll=unroll)

    def init(params, batch):
        return init_carry(model, params, batch)

    def grad(params, state, batch, key):
        batch = _with_keys(batch, key)

        def loss(params):
            carry, losses, steps = total(params, state, batch)
            return losses / steps.astype(losses.dtype), carry

        (value, carry), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, grads, jax.lax.stop_gradient(carry), dict(steps=real_steps(batch))

    return Estimator(init, grad)
