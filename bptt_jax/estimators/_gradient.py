"""The one door to an estimator's gradient: what comes out is a `Gradient`."""

from typing import Any

from jax import Array

from bptt_jax.types import Batch, Estimator, Gradient, PyTree


def gradient(
    estimator: Estimator, params: PyTree, state: PyTree, batch: Batch, key: Array
) -> Gradient:
    """`estimator.grad` of these arguments.

    Raises:
      TypeError: it gives something else than a `Gradient`.
    """
    found = estimator.grad(params, state, batch, key)
    if not isinstance(found, Gradient):
        raise TypeError(
            "estimator: expected its grad to return a bptt_jax.Gradient(loss, grads, "
            "state, steps, metrics), steps being how many real steps the loss is a mean "
            f"over, got {_named(found)}"
        )
    return found


def _named(found: Any) -> str:
    kind = type(found).__name__
    return f"a {kind} of {len(found)}" if isinstance(found, tuple | list) else kind
