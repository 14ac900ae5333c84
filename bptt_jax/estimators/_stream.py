"""Truncated BPTT over consecutive batches."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax import layers, unrolls
from bptt_jax._factory import factory
from bptt_jax.estimators._aux import beside, means
from bptt_jax.estimators._batches import (
    init_carry,
    real_steps,
    total_loss,
    with_keys,
)
from bptt_jax.types import (
    Batch,
    Cell,
    Estimator,
    Gradient,
    Layer,
    MetricEach,
    Objective,
    PyTree,
    Side,
    Unroll,
)


class Past(NamedTuple):
    """Some steps of a batch: what of it has an axis of time."""

    inputs: PyTree
    side: Side


class Recent(NamedTuple):
    """What a stream of overlapping windows hands on.

    carry: the state before the steps of `batch`.
    batch: the last window - stride steps, all with a mask and keys.
    """

    carry: PyTree
    batch: Past


@factory
def stream(
    model: Layer | Cell,
    objective: Objective,
    *,
    unroll: Unroll = unrolls.bptt,
    window: int | None = None,
    stride: int | None = None,
    aux: MetricEach | None = None,
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
      aux: as of `exact`.

    A batch's context is what its own losses see, also in earlier steps that are run again.

    Returns:
      An estimator whose state is the carry; where stride < window, a `Recent`, and the
      last window - stride steps of the past are run again with each batch, and the steps
      of a batch a second time without a gradient.
    """
    layers.refuse_sections("stream", model, "it hands the state on from batch to batch")
    if window is None:
        if stride is not None:
            raise ValueError(f"window: expected a number where stride is {stride}")
        return _consecutive(model, objective, unroll, aux)
    if unroll is not unrolls.bptt:
        raise ValueError("unroll: expected none where window is given")
    if stride is not None and (stride < 1 or window % stride):
        raise ValueError(
            f"stride: expected a divisor of the window of {window} steps, got {stride}"
        )
    if stride not in (None, window):
        return _overlapping(model, objective, window, stride, aux)
    cut = functools.partial(unrolls.truncated, window=window)
    return _consecutive(model, objective, cut, aux)


def _consecutive(
    model: Layer | Cell, objective: Objective, unroll: Unroll, aux: MetricEach | None
) -> Estimator:
    total = total_loss(model, beside(objective, aux), unroll=unroll)

    def init(params, batch):
        return init_carry(model, params, batch)

    def grad(params, state, batch, key):
        batch = with_keys(batch, key)

        def loss(params):
            carry, sums, _ = total(params, state, batch)
            value, told = means(sums, batch, aux)
            return value, (carry, told)

        (value, others), grads = jax.value_and_grad(loss, has_aux=True)(params)
        carry, told = jax.lax.stop_gradient(others)
        return Gradient(value, grads, carry, real_steps(batch), told)

    return Estimator(init, grad)


def _overlapping(
    model: Layer | Cell,
    objective: Objective,
    window: int,
    stride: int,
    aux: MetricEach | None,
) -> Estimator:
    layer = layers.with_loss(layers.lift(model, "model"), beside(objective, aux))
    overlap = window - stride
    unroll = functools.partial(unrolls.truncated, window=window, stride=stride)

    def init(params, batch):
        """No steps yet: as many as are handed on, masked."""
        batch = _whole(with_keys(batch, jax.random.key(0)))
        indices = jnp.arange(overlap) % trees.length(batch.inputs)
        past = jax.tree.map(lambda a: a[indices], Past(batch.inputs, batch.side))
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
        along = Past(batch.inputs, batch.side)
        joined = jax.tree.map(lambda *a: jnp.concatenate(a), state.batch, along)

        def loss(params):
            at = (layer, params, state.carry, joined.inputs, joined.side)
            losses = unroll(*at, context=batch.context)[1]
            sums = jax.tree.map(lambda a: a[overlap:].sum(), losses)
            return means(sums, batch, aux)

        (value, told), grads = jax.value_and_grad(loss, has_aux=True)(params)
        at = (layer, params, state.carry, *trees.cut(joined, 0, T))
        carry, _ = unrolls.bptt(*at, context=batch.context)
        recent = Recent(carry, jax.tree.map(lambda a: a[T:], joined))
        return Gradient(value, grads, recent, real_steps(batch), told)

    return Estimator(init, grad)


def _whole(batch: Batch) -> Batch:
    """With a mask, which the steps before the first are told by."""
    if batch.side.mask is not None:
        return batch
    shape = jax.tree.leaves(batch.inputs)[0].shape[:2]
    return batch._replace(side=batch.side._replace(mask=jnp.ones(shape, bool)))
