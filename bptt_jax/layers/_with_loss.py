"""A layer whose outputs are the losses of its steps."""

import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.types import Layer, Objective, Side, Weighted


def _losses(objective: Objective, ys, side: Side):
    """The loss of each step, summed over the batch: `[K]`."""
    targets, weights, mask = side.targets, None, side.mask
    if isinstance(targets, Weighted):
        targets, weights = targets
    if mask is not None:  # cleaned on the way in: 0 · NaN would be NaN on the way back
        if weights is not None and weights.ndim < mask.ndim:
            weights = jnp.broadcast_to(trees.along(mask, weights), mask.shape)
        ys, targets, weights = trees.only(mask, (ys, targets, weights))
    losses = objective(ys, targets)
    if weights is not None:
        losses = losses * trees.along(losses, weights)
    losses = losses if mask is None else trees.only(mask, losses)
    return losses.sum(
        tuple(range(1, losses.ndim)), dtype=trees.at_least_float32(losses.dtype)
    )


@factory
def with_loss(layer: Layer, objective: Objective) -> Layer:
    """Outputs the loss of each step, `[K]`: the layer's own outputs stay in the stretch.

    Args:
      layer: its outputs go to the objective.
      objective: `(ys, side.targets) -> losses [K, ...]`, see `bptt_jax.objectives`.

    Returns:
      A layer with outputs `[K]`: losses summed over the batch, zero at masked steps,
      times the weights where the targets are `Weighted`. So the outputs of the whole
      sequence (logits over a vocabulary, say) never exist at once.

    >>> from bptt_jax import cells, layers, objectives
    >>> layer = layers.with_loss(layers.recurrent(cells.lstm(3, 8)),
    ...                          objectives.squared_error)
    """

    def fwd(params, carry, xs, side):
        carry, ys, residuals = layer.fwd(params, carry, xs, side)
        return carry, _losses(objective, ys, side), (ys, residuals)

    def bwd(params, carry, xs, side, _, residuals, d_carry, d_losses):
        ys, residuals = residuals
        _, back = trees.pullback(lambda ys: _losses(objective, ys, side), ys)
        (d_ys,) = back(d_losses)
        return layer.bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys)

    inner = layer.watched
    watched = (
        None if inner is None else lambda watch: with_loss(inner(watch), objective)
    )
    return layer._replace(fwd=fwd, bwd=bwd, watched=watched)
