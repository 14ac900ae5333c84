"""Estimators: ways to get the gradient of a model on a batch. See `types.Estimator`.

The loss is the sum over steps and examples of the objective, divided by how many of them
are real: those the mask leaves, or the sum of the weights of `Weighted` targets.
"""

from bptt_jax.estimators._batches import init_carry, real_steps, total_loss, with_keys
from bptt_jax.estimators._data_parallel import data_parallel
from bptt_jax.estimators._exact import exact
from bptt_jax.estimators._stream import Recent, stream

__all__ = [
    "Recent",
    "data_parallel",
    "exact",
    "init_carry",
    "real_steps",
    "stream",
    "total_loss",
    "with_keys",
]
