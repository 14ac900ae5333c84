"""The exact gradient of each batch."""

import jax

from bptt_jax import unrolls
from bptt_jax._factory import factory
from bptt_jax.estimators._aux import beside, means
from bptt_jax.estimators._batches import (
    init_carry,
    total_loss,
    with_keys,
)
from bptt_jax.types import (
    Cell,
    Estimator,
    Gradient,
    Layer,
    MetricEach,
    Objective,
    Sections,
    Unroll,
)


@factory
def exact(
    model: Layer | Cell | Sections,
    objective: Objective,
    *,
    unroll: Unroll = unrolls.bptt,
    aux: MetricEach | None = None,
) -> Estimator:
    """The exact gradient of each batch by itself; a learned initial carry gets its own.

    Args:
      model: a layer, a cell, or `models.sections`; its outputs go to the objective.
      objective: see `bptt_jax.objectives`.
      unroll: how time is run and the gradient computed.
      aux: `(ys, targets) -> {name: values [K, B]}`, numbers or truths, told beside the
        loss and of the same pass; they have no gradient. None: nothing is.

    Returns:
      An estimator without a state: batches do not know of each other. The means of `aux`
      over the real steps, weighted as losses are, are the metrics of its `Gradient`; so
      `train.run` writes them down with each update.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import Batch, Side, cells, estimators, objectives
    >>> cell, off = cells.elman(1, 2), lambda ys, targets: abs(ys - targets).mean(-1)
    >>> estimator = estimators.exact(
    ...     cell, objectives.squared_error, aux=lambda *at: {"MAE": off(*at)}
    ... )
    >>> batch = Batch(jnp.zeros((5, 3, 1)), Side(targets=jnp.full((5, 3, 2), 0.5)))
    >>> params = cell.init(jax.random.key(0))
    >>> found = estimator.grad(params, (), batch, jax.random.key(1))
    >>> float(found.loss), float(found.metrics["MAE"])
    (0.5, 0.5)
    """
    total = total_loss(model, beside(objective, aux), unroll=unroll)

    def init(params, batch):
        del params, batch
        return ()

    def grad(params, state, batch, key):
        batch = with_keys(batch, key)

        def loss(params):
            _, sums, steps = total(params, init_carry(model, params, batch), batch)
            value, told = means(sums, batch, aux, steps)
            return value, (told, steps)

        (value, others), grads = jax.value_and_grad(loss, has_aux=True)(params)
        told, steps = others
        return Gradient(value, grads, state, steps, told)

    return Estimator(init, grad)
