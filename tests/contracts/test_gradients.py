"""The law of all laws: three gradients of everything, computed apart, are one.

hand-derived, as users run it  =  `jax.grad` of the plain loop  =  NumPy without JAX.

Of members with equations in NumPy the fast tier has the plain loop of the classic cells
alone: that a step by itself is that of the derivation is in `test_cells`. Before a release
the plain loop of all of them is differentiated in a process of its own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import _pytrees as trees
from bptt_jax import cells, unrolls
from bptt_jax.types import Cell
from oracles import CLOSED_FORMS, complex_slopes, complex_step
from support import autodiff
from support.compiled import as_users
from support.gradients import Case, arguments_of, error, gradients, of_unrolls
from support.grid import (
    CLASSIC,
    GRID,
    LENGTHS,
    LITTLE_NOISE,
    LONG,
    PARTS,
    SLOW_GRID,
)
from support.members import ALIKE, CELLS, COMBINED, LAYERS, UNROLLS
from support.reference import AS_REFERENCE

TOLERANCE = 1e-10
WITH_NUMPY = [k for k, e in GRID.items() if e.member.reference is not None]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return autodiff.compute(tmp_path_factory.mktemp("autodiff"))


@pytest.fixture(scope="module")
def found_of():
    """Each entry's gradients, by hand and of the plain loop, are compiled once for all."""

    @functools.cache
    def get(name):
        entry = GRID[name]
        layer, at = entry.build()
        hand = functools.partial(entry.unroll, **entry.options)
        if of_classic(name):  # as users run it, and what JAX 0.10.2 compiles rightly
            plain = gradients(layer, at, entry.plain, compiler_options=AS_REFERENCE)
            return at, gradients(layer, at, hand), plain
        if entry.member.reference is not None:
            return at, gradients(layer, at, hand), None
        both = hand, entry.plain
        return at, *of_unrolls(layer, at, *both, compiler_options=AS_REFERENCE)

    return get


@pytest.fixture(scope="module")
def by_hand(found_of):
    return lambda name: found_of(name)[:2]


def of_classic(name) -> bool:
    return name.split(":")[0] in CLASSIC


def _names(found):
    return [k for k in found if k.startswith("grad")]


def _cotangents(found: dict) -> list:
    """Those that `gradients` drew: carry's leaves, then ys."""
    rng = np.random.default_rng(2)
    return [rng.normal(size=v.shape) for k, v in found.items() if k.startswith("out")]


def same(found: dict, leaves, wanted, tolerance=TOLERANCE):
    for leaf, want in zip(leaves, wanted, strict=True):
        off = error(found[leaf], want)
        assert off <= tolerance, f"{leaf}: {off:.1e}"


def closed_form(name, at, found: dict):
    *d_carry, d_ys = _cotangents(found)
    d_carry = type(at.carry)(*d_carry) if isinstance(at.carry, tuple) else d_carry[0]
    return jax.tree.leaves(CLOSED_FORMS[name](*at[:4], d_carry, d_ys))


def of_closed_form(name) -> bool:
    return name.split(":")[0] in CLOSED_FORMS


def _as_users_run_it(name):
    """The classic cells in the fast tier, too; the others in the slow and release tiers."""
    return pytest.param(name, marks=[as_users] if of_classic(name) else [])


WITH_JAX = [k for k in GRID if of_classic(k)]
WITH_JAX += [k for k in GRID if k not in (*WITH_JAX, *WITH_NUMPY)]


@pytest.mark.parametrize("name", map(_as_users_run_it, WITH_JAX))
def test_equals_jax_grad(name, found_of):
    _, found, want = found_of(name)
    assert {value.dtype for value in found.values()} == {np.dtype(np.float64)}
    same(found, found, [want[leaf] for leaf in found])


@pytest.mark.release
@pytest.mark.parametrize("name", GRID)
def test_equals_jax_grad_in_a_process_of_its_own(name, truth, by_hand):
    _, found = by_hand(name)
    same(found, found, [truth[autodiff.key(name, leaf)] for leaf in found])


@pytest.mark.parametrize("name", WITH_NUMPY)
def test_equals_numpy(name, by_hand):
    at, found = by_hand(name)
    assert {value.dtype for value in found.values()} == {np.dtype(np.float64)}
    reference = GRID[name].member.reference
    values = jax.tree.leaves(reference(*at[:4]))
    grads = complex_step(reference, *at[:4], _cotangents(found))
    same(found, found, [*values, *grads])


@pytest.mark.parametrize("name", [k for k in WITH_NUMPY if of_closed_form(k)])
def test_equals_closed_form(name, by_hand):
    at, found = by_hand(name)
    same(found, found, closed_form(name.split(":")[0], at, found))


def test_every_cell_of_the_library_has_a_numpy_reference():
    members = {**CELLS, **UNROLLS}
    without = [name for name, member in members.items() if member.reference is None]
    assert sorted(without) == sorted(ALIKE)


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
    seen = 0
    for name, entry in GRID.items():
        if isinstance(entry.member.make(), Cell) and "T=7" in name and "plain" in name:
            _, found = by_hand(name)
            for leaf in (k for k in found if k.startswith("grad[1]")):
                assert np.abs(found[leaf]).max() > 1e-3, (name, leaf)
                seen += 1
    assert seen


def test_grids_have_every_member_and_every_cell_at_every_length_and_rank():
    for name in CELLS.keys() - ALIKE.keys():
        cases = [e.case for k, e in SLOW_GRID.items() if k.split(":")[0] == name]
        assert {case.T for case in cases} == set(LENGTHS), name
        assert {len(case.batch_shape) for case in cases} == {0, 1, 2}, name
    everywhere = {k.split(":")[0] for k in (*GRID, *SLOW_GRID)}
    assert {*CELLS, *COMBINED, *LAYERS, *UNROLLS} == everywhere


def in_tiers(name, slow):
    """The full grid takes long: some of it is in the slow tier, all before a release."""
    mark = pytest.mark.slow if name.split(":")[0] in slow else pytest.mark.release
    return pytest.param(name, marks=mark)


def also_rich(entry) -> set:
    """What is a part of another is in the slow tier with masks and resets alone."""
    return PARTS if "side=plain" in entry else set()


@pytest.mark.parametrize(
    "name",
    [in_tiers(k, {*CLASSIC, *LAYERS, *UNROLLS} - also_rich(k)) for k in SLOW_GRID],
)
def test_grid(name):
    """Lengths up to 1,000 against JAX here and, where there is one, against NumPy."""
    entry = SLOW_GRID[name]
    layer, at = entry.build()
    found = gradients(layer, at, entry.unroll, **entry.options)
    if at.T >= LONG and entry.case.side == "plain":
        all_steps_count(found)
    want = gradients(layer, at, entry.plain, compiler_options=AS_REFERENCE)
    tolerance = TOLERANCE if at.T < 1000 else 1e-8
    same(found, found, [want[leaf] for leaf in found], tolerance)
    if entry.member.reference is not None:
        same_slopes(entry.member.reference, at, found, tolerance)
    if of_closed_form(name):
        same(found, found, closed_form(name.split(":")[0], at, found), tolerance)


def same_slopes(reference, at, found: dict, tolerance):
    values = jax.tree.leaves(reference(*at[:4]))
    outs = [k for k in found if k not in _names(found)]
    same(found, outs, values, tolerance)
    slopes = complex_slopes(reference, *at[:4], _cotangents(found))
    for leaf, (v, slope) in zip(_names(found), slopes, strict=True):
        largest = np.abs(found[leaf]).max() * np.abs(v).sum()
        got = float((found[leaf] * v).sum())
        assert abs(got - slope) <= tolerance * max(largest, 1e-3), leaf


def all_steps_count(found: dict):
    """Errors are relative to the largest entry of a leaf: a gradient that explodes or
    vanishes along time would be compared at one end alone.
    """
    unused = {"grad[0].carry"}  # of a learned carry that no reset brings in
    for leaf in set(_names(found)) - unused:
        assert 1e-2 < np.abs(found[leaf]).max() < 1e6, leaf
    along_time = np.abs(found["grad[2]"])
    eighths = [a.max() for a in np.array_split(along_time, 8)]
    assert max(eighths) < 1e4 * min(eighths)


# In low precision

BOUNDS = {"float32": 5e-6, "bfloat16": 3e-2}
STEPS = 64
ELSEWHERE = ("elman", "lstm", "gru")  # in test_unrolls, at 1,000 steps as well
FLOATS = ("params", "carry", "xs")


def cast(at, dtype):
    return at._replace(
        **{k: trees.cast_floating(getattr(at, k), dtype) for k in FLOATS}
    )


@pytest.fixture(scope="module")
def exact():
    """Arguments that every dtype can hold, with their gradient in float64."""

    @functools.cache
    def get(name):
        cell = CELLS[name].make(16)
        member = CELLS[name]._replace(options=dict(noise=LITTLE_NOISE))
        at = arguments_of(member, cell, Case(STEPS, (2,), "plain", ()))
        at = cast(cast(calm(at), jnp.bfloat16), jnp.float64)
        return cell, at, gradients(cell, at)

    return get


def calm(at):
    """With a gain of 1 on a normalised recurrence small states are amplified until the
    net is chaotic, and any rounding error becomes one of the size of the gradient; so with
    the recurrent weights of `from_step`, whose radius is 2 for 16 units.
    """
    if not isinstance(at.params, dict):
        return at
    loud = {
        name: 0.3 * at.params[name] for name in ("scale_h", "r") if name in at.params
    }
    return at._replace(params={**at.params, **loud})


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(
    "name",
    [
        in_tiers(k, {"mgu", "lstm, all options", "zoneout, lstm"})
        for k in CELLS
        if k not in (*ALIKE, *ELSEWHERE)
    ],
)
def test_error_against_the_float64_truth(name, dtype, exact):
    """At most a fixed bound, or twice the error of autodiff in the same dtype."""
    cell, at, truth = exact(name)
    at = cast(at, dtype)
    found = gradients(cell, at)
    assert {value.dtype for value in found.values()} == {jnp.dtype(dtype)}
    off = {leaf: error(found[leaf], truth[leaf]) for leaf in _names(found)}
    if max(off.values()) <= BOUNDS[dtype]:
        return
    by_jax = gradients(cell, at, unrolls.scan)
    for leaf, e in off.items():
        assert e <= max(BOUNDS[dtype], 2 * error(by_jax[leaf], truth[leaf])), leaf


@pytest.mark.parametrize(
    "name",
    [
        "elman",
        *(
            pytest.param(k, marks=pytest.mark.slow)
            for k in ("learned_carry", "lstm, all options", "zoneout, lstm")
        ),
    ],
)
def test_float64_arithmetic_on_float32_parameters_is_exact_but_for_their_rounding(name):
    member = CELLS[name]
    cell = member.make()
    at = arguments_of(member, cell, Case(7, (2,), "resets", ()))
    low = cast(at, jnp.float32)
    found = gradients(
        cells.in_dtype(cell, jnp.float64),
        low._replace(carry=trees.cast_floating(low.carry, jnp.float64)),
        chunk=3,
    )
    want = gradients(cell, cast(low, jnp.float64), chunk=3)
    for leaf in _names(found):
        carry = leaf.startswith("grad[1]")
        assert found[leaf].dtype == (np.float64 if carry else np.float32), leaf
    same(found, found, [want[leaf] for leaf in found], 1.2e-7)
