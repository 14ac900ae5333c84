"""Estimators: ways to get the gradient of a model on a batch. See `types.Estimator`.

The loss is the sum over steps and examples of the objective, divided by how many of them
are real: those the mask leaves, or the sum of the weights of `Weighted` targets. Of a
batch without a real step both the loss and its gradient are zero.
"""

from bptt_jax.estimators._batches import (
    any_real,
    init_carry,
    per_real_step,
    real_steps,
    total_loss,
    with_keys,
)
from bptt_jax.estimators._buckets import bucketed, in_buckets
from bptt_jax.estimators._data_parallel import data_parallel
from bptt_jax.estimators._exact import exact
from bptt_jax.estimators._gradient import gradient
from bptt_jax.estimators._stream import Recent, stream

__all__ = [
    "Recent",
    "any_real",
    "bucketed",
    "data_parallel",
    "exact",
    "gradient",
    "in_buckets",
    "init_carry",
    "per_real_step",
    "real_steps",
    "stream",
    "total_loss",
    "with_keys",
]
