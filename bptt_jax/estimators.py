"""Estimators: ways to get the gradient of a model on a batch. See `types.Estimator`.

The loss is the sum over steps and examples of the objective, divided by how many of them
are real: those the mask leaves, or the sum of the weights of `Weighted` targets.
"""

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import layers, unrolls
from bptt_jax._factory import factory
from bptt_jax.types import Batch, Estimator, Layer, Objective, Side, Unroll, Weighted


def real_steps(batch: Batch) -> Array:
    """How many steps of how many examples the loss is a mean over."""
    shape = jax.tree.leaves(batch.inputs)[0].shape[:2]
    counts = jnp.ones(shape, jnp.float32)
    if isinstance(batch.side.targets, Weighted):
        counts = batch.side.targets.weights
    if batch.side.mask is not None:
        counts = jnp.where(batch.side.mask, counts, 0)
    return counts.sum()


def _with_keys(side: Side, key: Array, length: int) -> Side:
    return (
        side
        if side.keys is not None
        else side._replace(keys=jax.random.split(key, length))
    )


def _mean_loss(layer: Layer, unroll: Unroll, params, carry, batch: Batch, side: Side):
    carry, losses = unroll(layer, params, carry, batch.inputs, side)
    return losses.sum() / real_steps(batch), carry


def _batch_shape(batch: Batch) -> tuple[int, ...]:
    return (jax.tree.leaves(batch.inputs)[0].shape[1],)


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
    layer = layers.with_loss(model, objective)

    def init(params, batch):
        del params, batch
        return ()

    def grad(params, state, batch, key):
        side = _with_keys(batch.side, key, jax.tree.leaves(batch.inputs)[0].shape[0])

        def loss(params):
            carry = layer.init_carry(params, _batch_shape(batch))
            return _mean_loss(layer, unroll, params, carry, batch, side)[0]

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
    layer = layers.with_loss(model, objective)

    def init(params, batch):
        return layer.init_carry(params, _batch_shape(batch))

    def grad(params, state, batch, key):
        side = _with_keys(batch.side, key, jax.tree.leaves(batch.inputs)[0].shape[0])

        def loss(params):
            return _mean_loss(layer, unroll, params, state, batch, side)

        (value, carry), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, grads, jax.lax.stop_gradient(carry), dict(steps=real_steps(batch))

    return Estimator(init, grad)
