"""What is learnt from at once."""

from typing import NamedTuple

from bptt_jax.types._pytree import PyTree
from bptt_jax.types._side import Side


class Batch(NamedTuple):
    """Inputs with what goes beside them.

    inputs: leaves `[T, ..., I]`, or tokens `[T, ...]`.
    side: of all steps.
    context: what is constant in time, leaves `[B, ...]`, for a model that sees one
        (`InContext`); `()`: there is none.
    """

    inputs: PyTree
    side: Side
    context: PyTree = ()
