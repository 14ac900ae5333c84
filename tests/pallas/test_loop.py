"""`loops.pallas`: the kernels' numbers, interpreted."""

import pytest

from bptt_jax import layers, loops, unrolls
from bptt_jax.loops import _pallas
from bptt_jax.types import Cell
from support import pallas, tiers
from support.float64 import float64  # noqa: F401
from support.gradients import Case, all_pulled_back, arguments_of, worst
from support.members import ALIKE, CELLS, COMBINED

MEMBERS = {**CELLS, **COMBINED}
KINDS = ("elman", "lstm", "gru", "from_step", "stack")
"""Those that the fast tier has without masks, resets and keys, too: fewer inputs of a step."""


@pytest.fixture(autouse=True)
def blocks_of_two(monkeypatch):
    """Steps of a block: 5 are two blocks and a shorter one, and soon compiled."""
    monkeypatch.setattr(_pallas, "LONGEST", 2)


def sides(name: str) -> list[str]:
    """Of those there is a kernel for."""
    if "complex" in name:
        return []
    return ["plain"] if "zoneout" in name else ["plain", "both"]


def fast(name: str, side: str) -> bool:
    return side == sides(name)[-1] and name not in ALIKE or name in KINDS


def layer_of(member):
    made = member.make()
    return layers.recurrent(made) if isinstance(made, Cell) else made


@pytest.mark.parametrize(
    ("name", "side"),
    [
        tiers.tier(name, fast(name, side), (name, side))
        for name in MEMBERS
        for side in sides(name)
    ],
)
def test_a_kernel_has_the_numbers_of_step_by_step(name, side):
    """Outputs and gradients, in blocks and a shorter last one."""
    member, ran = MEMBERS[name], len(pallas.ran)
    layer = layer_of(member)
    at = arguments_of(member, layer, Case(5, (2,), side, (None,)))
    length = {} if at.xs is not None else dict(length=at.T)

    def by(loop):
        made = layers.with_options(layer, loop=loop)
        return lambda params, carry, xs: unrolls.bptt(
            made, params, carry, xs, at.side, chunk=5, **length
        )

    each = map(by, (pallas.interpreted, loops.step_by_step))
    difference, leaf = worst(*all_pulled_back(each, *at[:3]))
    assert difference < 1e-6, leaf
    assert {p["reverse"] for p in pallas.ran[ran:]} == {False, True}
