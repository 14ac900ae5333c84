"""A layer whose outputs are made of the losses of its steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax.layers._lift import check_objective, lift
from bptt_jax.layers._outputs import outputs
from bptt_jax.layers._stack import parts_of, with_last
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


def _larger(ys, xs) -> bool:
    """Whether to keep outputs takes more than to keep inputs, which are there anyway."""
    size = lambda tree: sum(a.size for a in jax.tree.leaves(tree))
    return size(ys) > size(xs)


def losses_of(objective: Objective, ys, side: Side):
    """The loss of each step and example, times its weight, zero where none counts."""
    targets, weights, counts = _weighted(side)
    # cleaned on the way in: 0 · NaN would be NaN on the way back
    ys, targets, weights = _read(counts, (ys, targets, weights))
    return jax.tree.map(
        lambda losses: _counted(losses, weights, counts),
        _each(objective, ys, targets),
    )


def _counted(losses, weights, counts):
    if counts is not None and counts.ndim > losses.ndim:
        raise ValueError(
            "objective: expected losses [K, ...] of each example, as the mask or the "
            f"weights {list(counts.shape)} are, got {list(losses.shape)}"
        )
    if not jnp.issubdtype(losses.dtype, jnp.inexact):  # what is right, say
        losses = losses.astype(jnp.float32)
    if weights is not None:
        losses = losses * trees.along(losses, weights)
    return losses if counts is None else trees.only(counts, losses)


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


def judged(
    layer: Layer | Cell, objective: Objective, outcome: Callable, again: Callable
) -> Layer:
    """The layer with its losses in the place of its outputs.

    Args:
      layer, objective: as of `with_loss`.
      outcome: what is given out of the losses `[K, ...]` of each step and example.
      again: `(layer, objective) -> Layer`, this very combinator by its own name.
    """
    layer = lift(layer)
    check_objective(objective)
    *before, last = parts_of(layer)
    if before and last.over is None:
        return with_last(layer, again(last, objective))

    def given(ys, side):
        return jax.tree.map(outcome, losses_of(objective, ys, side))

    def fwd(params, carry, xs, side):
        carry, ys, residuals = layer.fwd(params, carry, xs, side)
        kept = None if layer.over is None and _larger(ys, xs) else (ys, residuals)
        return carry, given(ys, side), kept

    def bwd(params, carry, xs, side, _, kept, d_carry, d_losses):
        kept = layer.fwd(params, carry, xs, side)[1:] if kept is None else kept
        ys, residuals = kept

        def losses(ys, targets):
            return given(ys, side._replace(targets=targets))

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
    over = None if inner is None else lambda f: again(inner(f), objective)
    return layer._replace(
        fwd=fwd, bwd=bwd, over=over, refuse=refuse, only_recurrent=False
    )
