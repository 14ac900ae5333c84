"""What every estimator asks of a batch, and the loss that all of them share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import _pytrees as trees
from bptt_jax import layers, unrolls
from bptt_jax._factory import factory
from bptt_jax.types import Batch, Layer, Objective, PyTree, Unroll, Weighted


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
