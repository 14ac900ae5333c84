"""Native gradients are as exact as others: in float64 those of JAX, in float32 and bfloat16 no
worse than those that XLA computes step by step.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import layers, loops, unrolls
from bptt_jax.types import Cell
from support.float64 import float64  # noqa: F401
from support.gradients import Case, arguments_of, error, gradients
from support.members import ALIKE, CELLS, COMBINED, LAYERS
from support.reference import AS_REFERENCE

NOT_NATIVE = ("layer norm", "all options", "learned_carry of zoneout")
ROUND_CELLS = (  # layers around cells, and what is kept of them
    "recurrent, masked and reset by its inputs",
    "recurrent, coefficients kept",
    "recurrent, nothing kept",
    "remat",
    "stack",
    "residual",
)
MEMBERS = {
    **{k: m for k, m in CELLS.items() if k not in ALIKE},
    **COMBINED,
    **{k: LAYERS[k] for k in ROUND_CELLS},
}
MEMBERS = {
    name: member
    for name, member in MEMBERS.items()
    if "complex" not in name and not any(part in name for part in NOT_NATIVE)
}
IN_FLOAT64 = ("in_dtype of learned_carry",)
"""What computes in float64 whatever it is given."""
WIDE = 21  # units: a vector and a rest of either kind of floats

CASES = [
    Case(7, (3,), "both", (None,)),
    Case(1, (2, 2), "resets", (None,)),
    Case(2, (), "mask", (None,)),
    Case(7, (2, 2), "plain", (3,)),
]
FAST = {("gru", 1), ("elman, relu", 2), ("lstm, projection", 3),
        ("zoneout of learned_carry", 0)}  # fmt: skip

UNIT = float(np.finfo(np.float32).eps)
FLOOR = 4 * UNIT
"""Of the largest entry: what the elementary functions of a kernel may be off (at most 4 ulp)."""


def every(in_turn) -> list:
    """All members with all cases; in_turn: the tier of each with one case, all cases in turn."""
    found = []
    for turn, name in enumerate(MEMBERS):
        for i, case in enumerate(CASES):
            slow = in_turn if i == turn % len(CASES) else pytest.mark.release
            marks = [] if (name, i) in FAST else [slow]
            label = f"{name}: {case.label(case.chunks[0])}"
            found.append(pytest.param(name, case, marks=marks, id=label))
    return found


@functools.cache
def built(name: str, case: Case, held=np.float32):
    """A layer, and arguments that `held` holds exactly, without keys: nothing is drawn."""
    member = MEMBERS[name]
    made = member.make(WIDE) if name in CELLS else member.make()
    layer = layers.recurrent(made) if isinstance(made, Cell) else made
    at = arguments_of(member, layer, case)
    at = at._replace(side=at.side._replace(keys=None))
    return layer, cast(cast(at, held), np.float64)


def cast(at, dtype):
    real = lambda a: jnp.issubdtype(np.asarray(a).dtype, jnp.floating)
    one = lambda a: np.asarray(a, dtype) if real(a) else a
    return at._replace(
        params=jax.tree.map(one, at.params),
        carry=jax.tree.map(one, at.carry),
        xs=jax.tree.map(one, at.xs),
    )


def found(name: str, case: Case, loop, dtype, held=np.float32) -> dict:
    layer, at = built(name, case, held)
    layer = layers.with_options(layer, loop=loop)
    (chunk,) = case.chunks
    return gradients(layer, cast(at, dtype), chunk=chunk)


@functools.cache
def truth(name: str, case: Case, held=np.float32) -> dict:
    """By JAX, in float64, of the plain loop."""
    layer, at = built(name, case, held)
    return gradients(layer, at, unrolls.scan, compiler_options=AS_REFERENCE)


# test_gradients.py has all members, by the loop that is the default: this one
@pytest.mark.parametrize(("name", "case"), every(pytest.mark.release))
def test_float64_is_that_of_jax(name, case):
    got = found(name, case, loops.native, np.float64)
    wanted = truth(name, case)
    assert got.keys() == wanted.keys()
    assert {a.dtype for a in got.values()} == {np.dtype(np.float64)}
    assert any(np.abs(a).max() > 1e-2 for k, a in got.items() if k.startswith("grad"))
    off = {k: error(got[k], wanted[k]) for k in got}
    assert max(off.values()) < 1e-10, off


@pytest.mark.parametrize(("name", "case"), every(pytest.mark.slow))
def test_float32_is_no_worse_than_step_by_step(name, case):
    """Twice its error at most, and what a rounding or two are."""
    if name in IN_FLOAT64:
        pytest.skip("it computes in float64")
    wanted = truth(name, case)
    native, plain = (
        found(name, case, loop, np.float32)
        for loop in (loops.native, loops.step_by_step)
    )
    assert {a.dtype for a in native.values()} == {np.dtype(np.float32)}
    for k, a in native.items():
        mine, others = error(a, wanted[k]), error(plain[k], wanted[k])
        assert mine <= 2 * others + FLOOR, (k, mine / UNIT, others / UNIT)


ROUNDED = float(jnp.finfo(jnp.bfloat16).eps)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(
            name, CASES[i], marks=[] if (name, i) in FAST else pytest.mark.release
        )
        for turn, name in enumerate(MEMBERS)
        for i in range(4)
        if (name, i) in FAST or i == turn % 4
    ],
)
def test_bfloat16_is_no_worse_than_step_by_step(name, case):
    """It is stored rounded and computed in float32: at most the error of the plain loop, which
    rounds each step, and what the result's own rounding is.
    """
    if name in IN_FLOAT64:
        pytest.skip("it computes in float64")
    wanted = truth(name, case, jnp.bfloat16)
    native, plain = (
        found(name, case, loop, jnp.bfloat16, jnp.bfloat16)
        for loop in (loops.native, loops.step_by_step)
    )
    assert {k: a.dtype for k, a in native.items()} == {
        k: a.dtype for k, a in plain.items()
    }
    for k, a in native.items():
        mine, others = error(a, wanted[k]), error(plain[k], wanted[k])
        assert mine <= 2 * others + ROUNDED, (k, mine / ROUNDED, others / ROUNDED)
