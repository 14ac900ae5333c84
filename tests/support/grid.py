"""Member × case × unroll: what is compared with `jax.grad` and with NumPy.

The richest case of every member that is no part of another, and the plain ones of a few,
are the fast tier. The rest is slow: every cell at each of `LENGTHS`, with every number of
batch axes.
"""

from collections.abc import Callable
from typing import NamedTuple

from bptt_jax import unrolls
from support.gradients import Case, arguments_of
from support.members import ALIKE, CELLS, COMBINED, LAYERS, UNROLLS, Member

LENGTHS = (1, 2, 7, 64, 1000)
LONG = 64
LITTLE_NOISE = 0.05  # on parameters, lest gradients explode over many steps

RICH = (Case(7, (2, 2), "both", (3,)),)
PLAIN = (Case(7, (3,), "plain", (None,)), Case(1, (), "mask", (None,)))
SLOW = (
    Case(1, (2, 2), "both", (None,)),
    Case(2, (), "resets", (1,)),
    Case(7, (3,), "mask", (2,)),
    Case(64, (2, 2), "plain", (16,)),
    Case(64, (), "both", (None,)),
    Case(1000, (3,), "plain", (None,)),
)
CLASSIC = ("elman", "lstm", "gru", "from_step")
PARTS = {
    name
    for members in (CELLS, LAYERS, UNROLLS)
    for name, member in members.items()
    if member.part_of
}
"""What another member of the fast tier has in it, or nearly so."""


class Entry(NamedTuple):
    member: Member
    case: Case
    unroll: Callable = unrolls.bptt
    plain: Callable = unrolls.scan

    def build(self):
        layer, member = self.member.make(), self.member
        if self.case.T >= LONG:
            member = member._replace(options=dict(member.options, noise=LITTLE_NOISE))
        return layer, arguments_of(member, layer, self.case)

    @property
    def options(self) -> dict:
        (chunk,) = self.case.chunks
        return {} if chunk is None else dict(chunk=chunk)


def _entries(members: dict, cases: tuple):
    for name, member in members.items():
        for case in cases:
            arms = {
                k: member.options[k] for k in ("unroll", "plain") if k in member.options
            }
            yield f"{name}: {case.label(case.chunks[0])}", Entry(member, case, **arms)


def _only(members: dict, names) -> dict:
    return {name: member for name, member in members.items() if name in names}


_distinct = _only(CELLS, CELLS.keys() - ALIKE.keys())
_others = {**_only(CELLS, ALIKE), **COMBINED}

_wholes = {**_distinct, **LAYERS, **UNROLLS}
_wholes = _only(_wholes, _wholes.keys() - PARTS)

GRID = dict(
    [
        *_entries(_wholes, RICH),
        *_entries(_only(CELLS, CLASSIC), PLAIN[:1]),
        *_entries(_only(CELLS, {"lstm"}), PLAIN[1:]),
    ]
)
SLOW_GRID = dict(
    [
        *_entries(_distinct, SLOW),
        *_entries(_others, RICH),
        *_entries(_only({**LAYERS, **UNROLLS}, PARTS), RICH),
        *_entries({**LAYERS, **UNROLLS}, PLAIN[:1]),
    ]
)
