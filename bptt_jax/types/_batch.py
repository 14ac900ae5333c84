"""What is learnt from at once."""

from typing import NamedTuple

from bptt_jax.types._pytree import PyTree
from bptt_jax.types._side import Side


class Batch(NamedTuple):
    """Inputs `[T, ..., I]` (or tokens `[T, ...]`) with what goes beside them."""

    inputs: PyTree
    side: Side
