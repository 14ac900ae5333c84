"""Functions of a whole sequence, for `models.sections`. See `bptt_jax.types.Whole`."""

from bptt_jax.wholes._attention import attention
from bptt_jax.wholes._attention_pool import attention_pool
from bptt_jax.wholes._bidirectional import bidirectional
from bptt_jax.wholes._ends import ends
from bptt_jax.wholes._last import last
from bptt_jax.wholes._mean import mean
from bptt_jax.wholes._one_step import one_step

__all__ = [
    "attention",
    "attention_pool",
    "bidirectional",
    "ends",
    "last",
    "mean",
    "one_step",
]
