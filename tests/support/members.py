"""The members that every contract suite runs over: the tables of `bptt_jax.verify`.

`bptt-jax check` and `bptt-jax train --cell` read the same ones. A new member is one entry
there.
"""

from bptt_jax import verify
from bptt_jax.verify import CELLS, LAYERS, UNROLLS, Member
from support.complex_cells import BY_HAND, BY_JAX

ALIKE = {name: member.alike for name, member in CELLS.items() if member.alike}
"""Cells that differ from another in nothing but how their parameters are made."""

COMPLEX = {
    "complex, by hand": Member(lambda: BY_HAND),
    "complex, from_step": Member(lambda: BY_JAX),
}
"""Cells whose parameters, states and outputs are complex, for inputs that are real.

    suite                     they are in it
    gradients, cuts,          as all of `COMBINED`
      strict_settings,
      sharded
    properties                the one by hand (numbers are drawn real, states are not)
    transforms                but for `hessian`, `jacfwd` and `jacrev`: JAX refuses these for
                              complex arguments, or complex outputs
    complex                   through every unroll, with masks, resets and layers around
                              them, beside the library's own cells with complex parameters
    unrolls, checkpointed,    no: by `complex`; what is left there is about lengths, schedules
      truncated, both_modes     and errors, which see no dtype
    randomly_truncated        no: by `complex`, where nothing is cut; its gains are real
    cells                     no: its laws are those of a factory by the number of units, of
                              one dtype; the laws of a derivative are in `cuts`
    layers, doors, targets    no: they are about other members and arguments
    memory, structure,        no: limits are in floats of one dtype, of cells of the library;
      plan                      a complex number is two
    export, export_elsewhere  no: files of the library's members
"""

COMBINED = {**verify.COMBINED, **COMPLEX}
"""Of these little but the gradient is checked."""

__all__ = ["ALIKE", "CELLS", "COMBINED", "COMPLEX", "LAYERS", "UNROLLS", "Member"]
