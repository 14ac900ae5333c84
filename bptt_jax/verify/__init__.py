"""Is a gradient right? A kit for the library's cells and for your own.

    check      hand-derived gradients against `jax.grad` and against differences, and what
               a cell says of itself
    canary     programs that XLA compiles wrongly on some CPUs: on this machine, too?
    CELLS, COMBINED, LAYERS, UNROLLS, WHOLES
               what the library offers, ready to be checked

>>> from bptt_jax import cells, verify
>>> report = verify.check(cells.elman(3, 4), inputs=3, lengths=(2,), chunks=(None,))
>>> report.wrong
()
"""

from bptt_jax.verify._canary import Finding, canary
from bptt_jax.verify._check import ClaimError, GradientError, check
from bptt_jax.verify._library import (
    CELLS,
    COMBINED,
    LAYERS,
    UNROLLS,
    WHOLES,
    Member,
    check_member,
)
from bptt_jax.verify._report import Report, Row

__all__ = [
    "CELLS",
    "COMBINED",
    "LAYERS",
    "UNROLLS",
    "WHOLES",
    "ClaimError",
    "Finding",
    "GradientError",
    "Member",
    "Report",
    "Row",
    "canary",
    "check",
    "check_member",
]
