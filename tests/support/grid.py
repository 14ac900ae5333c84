"""Member × case × unroll: what is compared with `jax.grad` and with NumPy."""

from collections.abc import Callable
from typing import NamedTuple

from support.gradients import Case, arguments_of
from support.members import CELLS, LAYERS, UNROLLS, Member

from bptt_jax import unrolls

FULL = (
    Case(7, (2, 2), "both", (3,)),
    Case(7, (3,), "plain", (None,)),
    Case(1, (), "mask", (None,)),
)
SHORT = FULL[:2]
SLOW = tuple(
    Case(T, batch_shape, side, (chunk,))
    for T, chunk in ((2, 1), (7, 1), (64, 16), (1000, None))
    for batch_shape, side in (((), "both"), ((3,), "plain"), ((2, 2), "resets"))
)


class Entry(NamedTuple):
    member: Member
    case: Case
    unroll: Callable = unrolls.bptt
    plain: Callable = unrolls.scan

    def build(self):
        layer = self.member.make()
        return layer, arguments_of(self.member, layer, self.case)

    @property
    def options(self) -> dict:
        (chunk,) = self.case.chunks
        return {} if chunk is None else dict(chunk=chunk)


def _entries(members: dict, cases: tuple):
    for name, member in members.items():
        for case in cases:
            arms = (member.options[k] for k in ("unroll", "plain") if k in member.options)
            yield f"{name}: {case.label(case.chunks[0])}", Entry(member, case, *arms)


GRID = dict(
    [*_entries(CELLS, FULL), *_entries(LAYERS, SHORT), *_entries(UNROLLS, SHORT)]
)
SLOW_GRID = dict(_entries(CELLS, SLOW))
