"""`loops.pallas`: the kernels' numbers, interpreted."""

import pytest

from bptt_jax import layers, loops, unrolls
from bptt_jax.loops import _pallas
from bptt_jax.types import Cell
from support import pallas
from support.float64 import float64  # noqa: F401
from support.gradients import Case, arguments_of, gradients, worst
from support.members import CELLS, COMBINED


@pytest.fixture(autouse=True)
def blocks_of_two(monkeypatch):
    """Steps of a block: 5 are two blocks and a shorter one, and soon compiled."""
    monkeypatch.setattr(_pallas, "LONGEST", 2)


def layer_of(member):
    made = member.make()
    return layers.recurrent(made) if isinstance(made, Cell) else made


@pytest.mark.parametrize("side", ["plain", "both"])
@pytest.mark.parametrize("name", [*CELLS, *COMBINED])
def test_a_kernel_has_the_numbers_of_step_by_step(name, side):
    """Outputs and gradients, in blocks and a shorter last one."""
    if "complex" in name or ("zoneout" in name and side == "both"):
        pytest.skip("it has no kernel")
    member = {**CELLS, **COMBINED}[name]
    layer = layer_of(member)
    at = arguments_of(member, layer, Case(5, (2,), side, (None,)))
    found, ran = {}, len(pallas.ran)
    for loop in (pallas.interpreted, loops.step_by_step):
        with_it = layers.with_options(layer, loop=loop)
        found[loop] = gradients(with_it, at, unrolls.bptt, chunk=5)
    difference, leaf = worst(found[pallas.interpreted], found[loops.step_by_step])
    assert difference < 1e-6, leaf
    assert {p["reverse"] for p in pallas.ran[ran:]} == {False, True}
