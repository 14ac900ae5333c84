"""The members that every contract suite runs over: the tables of `bptt_jax.verify`.

`bptt-jax check` and `bptt-jax train --cell` read the same ones. A new member is one entry
there.
"""

from bptt_jax import verify
from bptt_jax.verify import CELLS, LAYERS, UNROLLS, Member
from support.complex_cells import BY_HAND, BY_JAX

ALIKE = {name: member.alike for name, member in CELLS.items() if member.alike}
"""Cells that differ from another in nothing but how their parameters are made."""

COMBINED = {
    **verify.COMBINED,
    "complex, by hand": Member(lambda: BY_HAND),
    "complex, from_step": Member(lambda: BY_JAX),
}
"""Of these the gradient alone is checked; the last ones are of no member's kind."""

__all__ = ["ALIKE", "CELLS", "COMBINED", "LAYERS", "UNROLLS", "Member"]
