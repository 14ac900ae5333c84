"""Losses over time: `(ys [K, ..., O], targets) -> losses [K, ...]`, one for each step.

Where a sequence is judged at its end, `at_last_step` weighs its steps. The formulas are
optax's; an objective here only says which axis holds the outputs and computes in at least
float32, whatever the dtype of the outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import optax
from jax import Array, lax

from bptt_jax import _pytrees as trees

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, Inexact, Integer, Num, Real

ROUNDING = 2**-6
"""How far a probability may be outside of [0, 1]: a sum in bfloat16 is, now and then."""


def _at_least_float32(ys: Inexact[Array, "*S"]) -> Inexact[Array, "*S"]:
    return ys.astype(trees.at_least_float32(ys.dtype))


def _nan_outside(inside: Bool[Array, "*S"], dtype) -> Inexact[Array, "*S"]:
    """A factor that makes NaN of a loss, and of what is differentiated of it."""
    return jnp.where(inside, jnp.ones((), dtype), jnp.full((), jnp.nan, dtype))


def softmax_cross_entropy(
    logits: Float[Array, "K *B O"], labels: Integer[Array, "K *B"]
) -> Float[Array, "K *B"]:
    """Cross-entropy in nats of `logits [K, ..., O]` against integers `labels [K, ...]`.

    Raises:
      ValueError: outside of `jit`, where values are known: a label outside of 0 … O - 1,
        -1 included. Where they are traced its loss and the gradient of it are NaN.

    >>> import jax.numpy as jnp
    >>> softmax_cross_entropy(jnp.zeros((1, 4)), jnp.array([2])).round(4)
    Array([1.3863], dtype=float32)
    """
    n = logits.shape[-1]
    trees.refuse_outside("labels", f"integers from 0 to {n - 1}", labels, 0, n - 1)
    labels = trees.wide(labels)
    inside = (labels >= 0) & (labels < n)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        _at_least_float32(logits), jnp.where(inside, labels, 0)
    )
    return losses * _nan_outside(inside, losses.dtype)


def squared_error(
    predictions: Inexact[Array, "K *B O"], targets: Num[Array, "K *B O"]
) -> Float[Array, "K *B"]:
    """Squared error, summed over the last axis: `[K, ..., O], [K, ..., O] -> [K, ...]`.

    Of complex numbers the square of the modulus.

    >>> import jax.numpy as jnp
    >>> squared_error(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]]))
    Array([25.], dtype=float32)
    """
    return jnp.sum(trees.squares(_at_least_float32(predictions) - targets), -1)


def sigmoid_cross_entropy(
    logits: Float[Array, "K *B O"],
    labels: Real[Array, "K *B O"] | Bool[Array, "K *B O"],
) -> Float[Array, "K *B"]:
    """Bernoulli cross-entropy in nats, summed over the last axis: `-> [K, ...]`.

    `labels [K, ..., O]` are probabilities, or zeros and ones.

    Raises:
      ValueError: outside of `jit`, where values are known: a label below 0 or above 1 by
        more than rounding. Where they are traced its loss and the gradient of it are NaN.

    >>> import jax.numpy as jnp
    >>> sigmoid_cross_entropy(jnp.zeros((1, 2)), jnp.ones((1, 2))).round(4)
    Array([1.3863], dtype=float32)
    """
    low, high = -ROUNDING, 1 + ROUNDING
    trees.refuse_outside("labels", "numbers from 0 to 1", labels, low, high)
    logits, labels = _at_least_float32(logits), jnp.asarray(labels)
    labels = labels if trees.is_floating(labels) else labels.astype(logits.dtype)
    inside = (labels >= low) & (labels <= high)
    each = optax.sigmoid_binary_cross_entropy(logits, labels)
    return jnp.sum(each * _nan_outside(inside, each.dtype), -1)


def at_last_step(
    mask: Bool[Array, "T *B"], resets: Bool[Array, "T *B"] | None = None
) -> Float32[Array, "T *B"]:
    """Weights of a loss that counts at the last real step of each sequence alone.

    The last step of a padded sequence is padding, and a loss there is the loss of
    nothing. Of an example without a real step all weights are zero.

    Args:
      mask: bool `[T, ...]`, `Side.mask`; all True where there is no padding.
      resets: bool `[T, ...]`, `Side.resets`: several sequences in a row, one after
        another, each of which has a last step; None: one sequence in each row.

    Returns:
      float32 `[T, ...]`, for `Weighted(targets, weights)`.

    Raises:
      TypeError, ValueError: a dtype or a shape does not fit.

    >>> import jax.numpy as jnp
    >>> mask = jnp.array([[1, 1], [1, 1], [0, 1], [0, 0]], bool)
    >>> at_last_step(mask).T.tolist()
    [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    mask = jnp.asarray(mask)
    resets = None if resets is None else jnp.asarray(resets)
    for name, a in dict(mask=mask, resets=mask if resets is None else resets).items():
        if a.dtype != bool:
            raise TypeError(f"{name}: expected bool, got {a.dtype}")
        if not a.ndim or a.shape != mask.shape:
            want = "[T, ...]" if name == "mask" else f"{list(mask.shape)}, as mask"
            raise ValueError(f"{name}: expected {want}, got {list(a.shape)}")
    if (
        resets is None
    ):  # by a maximum: a running sum over steps of any number has no program
        steps = jnp.arange(mask.shape[0], dtype=jnp.int32)
        steps = steps.reshape(-1, *[1] * (mask.ndim - 1))
        last = jnp.where(mask, steps, jnp.int32(-1)).max(0, keepdims=True)
        return (steps == last).astype(jnp.float32)
    left = jnp.cumsum(mask[::-1], 0, jnp.int32)[::-1]  # real steps from t on
    begins = jnp.where(resets, left, jnp.int32(0))
    later = lax.cummax(begins, reverse=True)[1:]  # less those from the next reset on
    left = left - jnp.concatenate([later, jnp.zeros_like(left[:1])])
    return (mask & (left == 1)).astype(jnp.float32)
