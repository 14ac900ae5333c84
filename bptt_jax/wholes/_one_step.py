"""What goes beside one output of a whole sequence."""

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import _pytrees as trees
from bptt_jax import objectives
from bptt_jax.types import PyTree, Side, Weighted


def one_step(side: Side) -> Side:
    """The side of one output of a whole sequence: mask and targets `[1, ...]`.

    What the output is compared with is the target of the last step that counts: the last
    real one, and where targets are `Weighted` the last real one whose weight is not zero,
    with that weight. So a class at the last real step, as tasks give it, is the class of the
    sequence.

    Args:
      side: of the sequence, `[T, ...]`.

    Returns:
      A side of one step: masked where a sequence has no real step; without keys and resets;
      of `aux` the last step.

    Raises:
      ValueError: there are resets, so a row is several sequences.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import Side, wholes
    >>> mask = jnp.array([[1, 1], [1, 1], [0, 1]], bool)
    >>> labels = jnp.array([[4, 5], [6, 7], [8, 9]])
    >>> wholes.one_step(Side(mask=mask, targets=labels)).targets.tolist()
    [[6, 9]]
    """
    if side.resets is not None:
        raise ValueError(
            "side.resets: expected None where one output is made of a whole row, which would "
            "be several sequences"
        )
    mask, targets = side.mask, side.targets
    real = None if mask is None else mask.any(0, keepdims=True)
    if isinstance(targets, Weighted):
        targets = Weighted(*at_last(_counting(mask, targets.weights), tuple(targets)))
    else:
        targets = at_last(mask, targets)
    return Side(
        mask=real, targets=targets, aux=jax.tree.map(lambda a: a[-1:], side.aux)
    )


def _counting(mask: Array | None, weights: Array) -> Array:
    """`[T, ...]`, the steps that have a weight and are real."""
    if mask is None:
        return weights != 0
    few, many = sorted((weights != 0, mask), key=jnp.ndim)
    return trees.along(many, few) & many


def at_last(flags: Array | None, tree: PyTree) -> PyTree:
    """`[1, ...]`, leaves at the last step that is flagged; zero where none is.

    Args:
      flags: bool `[T, ...]`; None: all are.
      tree: leaves `[T, ...]`; one without the batch axes of the flags is that of all examples.
    """
    if flags is None:
        return jax.tree.map(lambda a: a[-1:], tree)
    return _at(objectives.at_last_step(flags) != 0, tree)


def at_first(flags: Array | None, tree: PyTree) -> PyTree:
    """`at_last` from the other end."""
    if flags is None:
        return jax.tree.map(lambda a: a[:1], tree)
    return _at(objectives.at_last_step(flags[::-1])[::-1] != 0, tree)


def _at(one: Array, tree: PyTree) -> PyTree:
    """Leaves at the one step of each example that is True: a sum, which no device has to
    gather examples for.
    """

    def leaf(a):
        if a.shape[: one.ndim] != one.shape:
            a = a.reshape(a.shape[0], *[1] * (one.ndim - 1), *a.shape[1:])
        chosen = jnp.where(trees.along(a, one), a, jnp.zeros_like(a))
        if a.dtype == bool:
            return chosen.any(0, keepdims=True)
        return chosen.sum(0, keepdims=True, dtype=a.dtype)

    return jax.tree.map(leaf, tree)
