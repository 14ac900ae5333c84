"""Member × case × unroll: what is compared with `jax.grad` and with NumPy."""

from collections.abc import Callable
from typing import NamedTuple

from bptt_jax import unrolls
from support.gradients import Case, arguments_of
from support.members import CELLS, LAYERS, UNROLLS, Member

RICH = (Case(7, (2, 2), "both", (3,)),)
PLAIN = (Case(7, (3,), "plain", (None,)), Case(1, (), "mask", (None,)))
SLOW = tuple(
    Case(T, batch_shape, side, (chunk,))
    for T, chunk in ((2, 1), (7, 1), (64, 16), (1000, None))
    for batch_shape, side in (((), "both"), ((3,), "plain"), ((2, 2), "resets"))
)
CLASSIC = ("elman", "elman, relu", "lstm", "gru", "gru, reset before", "from_step")


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
            arms = (
                member.options[k] for k in ("unroll", "plain") if k in member.options
            )
            yield f"{name}: {case.label(case.chunks[0])}", Entry(member, case, *arms)


GRID = dict(
    [
        *_entries({**CELLS, **LAYERS, **UNROLLS}, RICH),
        *_entries({name: CELLS[name] for name in CLASSIC}, PLAIN),
    ]
)
SLOW_GRID = dict([*_entries(CELLS, SLOW), *_entries({**LAYERS, **UNROLLS}, PLAIN)])
