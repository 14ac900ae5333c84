"""The exact gradient of each batch."""

import jax

from bptt_jax import unrolls
from bptt_jax._factory import factory
from bptt_jax.estimators._batches import (
    init_carry,
    per_real_step,
    real_steps,
    total_loss,
    with_keys,
)
from bptt_jax.types import Cell, Estimator, Gradient, Layer, Objective, Unroll


@factory
def exact(
    model: Layer | Cell, objective: Objective, *, unroll: Unroll = unrolls.bptt
) -> Estimator:
    """The exact gradient of each batch by itself; a learned initial carry gets its own.

    Args:
      model: a layer or a cell; its outputs go to the objective.
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
            _, losses, _ = total(params, init_carry(model, params, batch), batch)
            return per_real_step(losses, batch)

        value, grads = jax.value_and_grad(loss)(params)
        return Gradient(value, grads, state, real_steps(batch), {})

    return Estimator(init, grad)
