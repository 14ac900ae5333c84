"""Losses over time: `(ys [K, ..., O], targets) -> losses [K, ...]`, one for each step.

The formulas are optax's; an objective here only says which axis holds the outputs and
computes in at least float32, whatever the dtype of the outputs.
"""

import jax.numpy as jnp
import optax
from jax import Array

from bptt_jax import _pytrees as trees


def _at_least_float32(ys: Array) -> Array:
    return ys.astype(trees.at_least_float32(ys.dtype))


def softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    """Cross-entropy in nats of `logits [K, ..., O]` against integers `labels [K, ...]`.

    >>> import jax.numpy as jnp
    >>> softmax_cross_entropy(jnp.zeros((1, 4)), jnp.array([2])).round(4)
    Array([1.3863], dtype=float32)
    """
    return optax.softmax_cross_entropy_with_integer_labels(
        _at_least_float32(logits), labels
    )


def squared_error(predictions: Array, targets: Array) -> Array:
    """Squared error, summed over the last axis: `[K, ..., O], [K, ..., O] -> [K, ...]`.

    >>> import jax.numpy as jnp
    >>> squared_error(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]]))
    Array([25.], dtype=float32)
    """
    return jnp.sum((_at_least_float32(predictions) - targets) ** 2, -1)


def sigmoid_cross_entropy(logits: Array, labels: Array) -> Array:
    """Bernoulli cross-entropy in nats, summed over the last axis: `-> [K, ...]`.

    `labels [K, ..., O]` are probabilities, or zeros and ones.

    >>> import jax.numpy as jnp
    >>> sigmoid_cross_entropy(jnp.zeros((1, 2)), jnp.ones((1, 2))).round(4)
    Array([1.3863], dtype=float32)
    """
    each = optax.sigmoid_binary_cross_entropy(_at_least_float32(logits), labels)
    return jnp.sum(each, -1)
