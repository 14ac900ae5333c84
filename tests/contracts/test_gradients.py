"""The law of all laws: three gradients of everything, computed apart, are one.

hand-derived, as users run it  =  `jax.grad` of the plain loop, in a process of its own
=  NumPy without JAX.
"""

import jax
import numpy as np
import pytest

from bptt_jax.types import Cell
from oracles import CLOSED_FORMS, complex_step
from support import autodiff
from support.gradients import error, gradients
from support.grid import GRID, SLOW_GRID

TOLERANCE = 1e-10
WITH_NUMPY = [k for k, e in GRID.items() if e.member.reference is not None]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return autodiff.compute(tmp_path_factory.mktemp("autodiff"))


@pytest.fixture(scope="module")
def by_hand():
    """Each entry's hand-derived gradient is compiled once for all tests of it."""
    made = {}

    def get(name):
        if name not in made:
            layer, at = GRID[name].build()
            made[name] = (
                at,
                gradients(layer, at, GRID[name].unroll, **GRID[name].options),
            )
        return made[name]

    return get


@pytest.mark.parametrize("name", GRID)
def test_equals_jax_grad(name, truth, by_hand):
    _, found = by_hand(name)
    for leaf, value in found.items():
        want = truth[autodiff.key(name, leaf)]
        assert value.dtype == np.float64
        assert error(value, want) <= TOLERANCE, f"{leaf}: {error(value, want):.1e}"


@pytest.mark.parametrize("name", WITH_NUMPY)
def test_equals_numpy(name, by_hand):
    at, found = by_hand(name)
    leaves = [found[k] for k in found if k.startswith("grad")]
    wanted = complex_step(GRID[name].member.reference, *at[:4], _cotangents(found))
    for k, value, want in zip(_names(found), leaves, wanted, strict=True):
        assert error(value, want) <= TOLERANCE, f"{k}: {error(value, want):.1e}"


@pytest.mark.parametrize(
    "name", [k for k in WITH_NUMPY if k.split(":")[0] in CLOSED_FORMS]
)
def test_equals_closed_form(name, by_hand):
    at, found = by_hand(name)
    *d_carry, d_ys = _cotangents(found)
    d_carry = type(at.carry)(*d_carry) if isinstance(at.carry, tuple) else d_carry[0]
    closed = CLOSED_FORMS[name.split(":")[0]]
    values, grads = closed(*at[:4], d_carry, d_ys)
    for k, want in zip(found, jax.tree.leaves((values, grads)), strict=True):
        assert error(found[k], want) <= TOLERANCE, f"{k}: {error(found[k], want):.1e}"


def test_gradients_do_not_vanish(by_hand):
    """Zeros agree with zeros: each argument's gradient is sizeable in some case."""
    largest: dict = {}
    for name in GRID:
        for leaf, value in by_hand(name)[1].items():
            key = name.split(":")[0], leaf
            size = float(np.max(np.abs(value), initial=0.0))
            largest[key] = max(largest.get(key, 0.0), size)
    assert {k: v for k, v in largest.items() if v < 1e-2} == {}


def test_gradient_reaches_back_seven_steps(by_hand):
    for name, entry in GRID.items():
        if isinstance(entry.member.make(), Cell) and "T=7" in name and "plain" in name:
            at, found = by_hand(name)
            for leaf in (k for k in found if k.startswith("grad[1]")):
                assert np.abs(found[leaf]).max() > 1e-3, (name, leaf)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_GRID)
def test_grid(name):
    """Lengths up to 1,000 against JAX here and, where there is one, a closed form."""
    entry = SLOW_GRID[name]
    layer, at = entry.build()
    found = gradients(layer, at, entry.unroll, **entry.options)
    want = gradients(layer, at, entry.plain)
    tolerance = TOLERANCE if at.T < 1000 else 1e-8
    for leaf, value in found.items():
        assert error(value, want[leaf]) <= tolerance, leaf


def _names(found):
    return [k for k in found if k.startswith("grad")]


def _cotangents(found: dict) -> list:
    """Those that `gradients` drew: carry's leaves, then ys."""
    rng = np.random.default_rng(2)
    return [rng.normal(size=v.shape) for k, v in found.items() if k.startswith("out")]
