"""Cells: one recurrent step each, with its hand-derived derivative. See `types.Cell`.

What is imported as itself is for the other rooms and promised to nobody else.
"""

from bptt_jax.cells._ctrnn import ctrnn
from bptt_jax.cells._elman import elman
from bptt_jax.cells._from_parts import from_parts
from bptt_jax.cells._from_step import from_step
from bptt_jax.cells._gru import gru
from bptt_jax.cells._hooked import Hook as Hook
from bptt_jax.cells._hooked import hooked as hooked
from bptt_jax.cells._hooked import watching as watching
from bptt_jax.cells._in_dtype import in_dtype
from bptt_jax.cells._indrnn import indrnn
from bptt_jax.cells._init import identity
from bptt_jax.cells._learned_carry import LearnedCarryParams, learned_carry
from bptt_jax.cells._lstm import LSTMCarry, lstm
from bptt_jax.cells._masked import add_output, masked
from bptt_jax.cells._mgu import mgu
from bptt_jax.cells._output import output_leaves as output_leaves
from bptt_jax.cells._output import recognised
from bptt_jax.cells._parts import contract, forward, linearize, named_gates
from bptt_jax.cells._parts import is_factor as is_factor
from bptt_jax.cells._parts import summed as summed
from bptt_jax.cells._resets import resets
from bptt_jax.cells._side import with_side as with_side
from bptt_jax.cells._side import without_side as without_side
from bptt_jax.cells._zoneout import zoneout

__all__ = [
    "LSTMCarry",
    "LearnedCarryParams",
    "add_output",
    "contract",
    "ctrnn",
    "elman",
    "forward",
    "from_parts",
    "from_step",
    "gru",
    "identity",
    "in_dtype",
    "indrnn",
    "learned_carry",
    "linearize",
    "lstm",
    "masked",
    "mgu",
    "named_gates",
    "recognised",
    "resets",
    "zoneout",
]
