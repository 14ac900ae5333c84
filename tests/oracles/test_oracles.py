"""The oracles against each other: the closed forms against complex steps, in NumPy."""

import numpy as np
import pytest

from oracles import CLOSED_FORMS, complex_step
from oracles._complex_step import _paths
from support.gradients import Case, arguments_of, error
from support.members import CELLS


@pytest.mark.parametrize("side", ["plain", "resets", "mask", "both"])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_form_equals_complex_step(name, side):
    member = CELLS[name]
    at = arguments_of(member, member.make(), Case(5, (2,), side, ()))
    rng = np.random.default_rng(0)
    out = member.reference(at.params, at.carry, at.xs, at.side)
    d_carry, d_ys = cotangents = _like(out, rng)
    flat = [a for _, a in _paths(cotangents)]
    values, grads = CLOSED_FORMS[name](*at[:4], d_carry, d_ys)
    steps = complex_step(member.reference, *at[:4], flat)
    for (_, a), (_, b) in zip(_paths(values), _paths(out), strict=True):
        assert error(a, b) < 1e-13
    for (path, a), b in zip(_paths(grads), steps, strict=True):
        if side == "plain":  # a reset may cut the first carry off
            assert np.abs(b).max() > 1e-3, f"nothing compared at {path}"
        assert error(a, b) < 1e-11, path


def _like(out, rng):
    carry, ys = out
    if isinstance(carry, tuple):
        return type(carry)(*(rng.normal(size=a.shape) for a in carry)), rng.normal(
            size=ys.shape
        )
    return rng.normal(size=carry.shape), rng.normal(size=ys.shape)
