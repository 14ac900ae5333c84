"""A layer whose outputs are the losses of its steps."""

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.layers._lift import check_objective, lift
from bptt_jax.layers._outputs import outputs
from bptt_jax.types import Cell, Layer, Objective, Side, Weighted


def _weighted(side: Side) -> tuple:
    """Targets, weights `[T, ...]` and flags `[T, ...]` of what counts; None: all does."""
    targets, weights, counts = side.targets, None, side.mask
    if isinstance(targets, Weighted):
        targets, weights = targets
        counts = weights != 0
        if side.mask is not None:
            few, many = sorted((counts, side.mask), key=jnp.ndim)
            counts = trees.along(many, few) & many
            weights = jnp.broadcast_to(trees.along(counts, weights), counts.shape)
    return targets, weights, counts


def _read(counts, tree):
    """The leaves of each step, zero where nothing is to be read of them."""

    def leaf(a):  # one for all examples is read where any example counts
        return trees.only(counts, a) if a.shape[: counts.ndim] == counts.shape else a

    return tree if counts is None else jax.tree.map(leaf, tree)


def _losses(objective: Objective, ys, side: Side):
    """The loss of each step, summed over the batch: `[K]`."""
    targets, weights, counts = _weighted(side)
    # cleaned on the way in: 0 · NaN would be NaN on the way back
    ys, targets, weights = _read(counts, (ys, targets, weights))
    losses = _each(objective, ys, targets)
    if weights is not None:
        losses = losses * trees.along(losses, weights)
    losses = losses if counts is None else trees.only(counts, losses)
    return losses.sum(
        tuple(range(1, losses.ndim)), dtype=trees.at_least_float32(losses.dtype)
    )


def _refuse(objective: Objective, ys, side: Side) -> None:
    """Lets the objective see what is known of its targets, beside shapes of outputs."""
    targets, _, counts = _weighted(side)
    if all(trees.known(a) is None for a in jax.tree.leaves(targets)):
        return
    if counts is not None and trees.known(counts) is None:
        return
    targets = _read(counts, targets)
    jax.eval_shape(lambda ys: objective(ys, targets), ys)


def _each(objective: Objective, ys, targets):
    try:
        return objective(ys, targets)
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        if targets is not None:
            raise
        raise ValueError(
            "side.targets: expected what the objective compares with, got None; give "
            f"Side(targets=…) (the objective raised {type(error).__name__}: {error})"
        ) from error


@factory
def with_loss(layer: Layer | Cell, objective: Objective) -> Layer:
    """Outputs the loss of each step, `[K]`: the layer's own outputs stay in the stretch.

    Args:
      layer: its outputs go to the objective.
      objective: `(ys, side.targets) -> losses [K, ...]`, see `bptt_jax.objectives`.

    Returns:
      A layer with outputs `[K]`: losses summed over the batch, zero at masked steps,
      times the weights where the targets are `Weighted`. So the outputs of the whole
      sequence (logits over a vocabulary, say) never exist at once.

    >>> from bptt_jax import cells, layers, objectives
    >>> layer = layers.with_loss(cells.lstm(3, 8), objectives.squared_error)
    """
    layer = lift(layer)
    check_objective(objective)

    def fwd(params, carry, xs, side):
        carry, ys, residuals = layer.fwd(params, carry, xs, side)
        return carry, _losses(objective, ys, side), (ys, residuals)

    def bwd(params, carry, xs, side, _, residuals, d_carry, d_losses):
        ys, residuals = residuals

        def losses(ys, targets):
            return _losses(objective, ys, side._replace(targets=targets))

        _, back = trees.pullback(losses, ys, side.targets)
        d_ys, d_targets = back(d_losses)  # the second is dropped where nobody asks
        *ds, inner = layer.bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys)
        return *ds, trees.sum_of(d_targets, inner)

    def refuse(params, carry, xs, side):
        if layer.refuse is not None:
            layer.refuse(params, carry, xs, side)
        if any(trees.is_integer(a) for a in jax.tree.leaves(side.targets)):
            _refuse(objective, outputs(layer, params, carry, xs, side), side)

    inner = layer.over
    over = None if inner is None else lambda f: with_loss(inner(f), objective)
    return layer._replace(fwd=fwd, bwd=bwd, over=over, refuse=refuse)
