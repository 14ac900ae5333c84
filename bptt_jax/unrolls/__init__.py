"""Unrolls: a layer through all of time, each with its way to the gradient.

`(layer_or_cell, params, carry, xs, side=Side(), *, …) -> (carry, ys)`; and `step`, one of them
at a time.

What is imported as itself is for the other rooms and promised to nobody else.
"""

from bptt_jax._chunks import default_chunk
from bptt_jax.unrolls._both_modes import both_modes
from bptt_jax.unrolls._bptt import bptt
from bptt_jax.unrolls._checkpointed import checkpointed
from bptt_jax.unrolls._mask import sequence_mask
from bptt_jax.unrolls._plan import Plan, plan
from bptt_jax.unrolls._pullback import Pulled, contract, pullback
from bptt_jax.unrolls._randomly_truncated import (
    randomly_truncated,
    times,
    truncation_gains,
)
from bptt_jax.unrolls._reverse import reverse
from bptt_jax.unrolls._scan import scan
from bptt_jax.unrolls._step import step
from bptt_jax.unrolls._through import through as through
from bptt_jax.unrolls._truncated import truncated

__all__ = [
    "Plan",
    "Pulled",
    "both_modes",
    "bptt",
    "checkpointed",
    "contract",
    "default_chunk",
    "plan",
    "pullback",
    "randomly_truncated",
    "reverse",
    "scan",
    "sequence_mask",
    "step",
    "times",
    "truncated",
    "truncation_gains",
]
