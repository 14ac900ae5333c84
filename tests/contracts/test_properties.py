"""Properties that hold for all arguments, tried on random ones.

Shapes come from a short list, so that each program is compiled once; the examples are the
same at every run.
"""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bptt_jax import unrolls
from bptt_jax.types import Side
from support import tiers
from support.gradients import Case, arguments_of, error, quick_jit
from support.members import CELLS, COMPLEX, UNROLLS

T, B, CHUNK = 7, 3, 3
MEMBERS = {**CELLS, **UNROLLS, **COMPLEX}
TOLERANCE = 1e-12
STAND_FOR_ALL = ("learned_carry", "from_step")
"""Beside a cell with a derivation: one of JAX's, and one with a carry of its own."""


def _tier(name) -> list:
    if name == "lstm":
        return []
    return [pytest.mark.slow if name in STAND_FOR_ALL else pytest.mark.release]


CELLS_AND_ONE = [
    *(pytest.param(name, marks=_tier(name)) for name in CELLS),
    tiers.slow("complex, by hand", False),
]
every_cell = pytest.mark.parametrize("name", CELLS_AND_ONE)
every_one = pytest.mark.parametrize(
    "name", [*CELLS_AND_ONE, *tiers.unrolls(fast=UNROLLS)]
)
"""Cells through `bptt`, and unrolls."""
some_examples = settings(
    max_examples=10,
    derandomize=True,
    deadline=None,
    phases=(Phase.generate, Phase.shrink),
    database=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,  # ours clears caches, nothing else
        HealthCheck.too_slow,
    ],
)
seeds = st.integers(0, 2**16)
sides = st.sampled_from(["plain", "both"])


@functools.cache
def _member(name):
    """A cell, its parameters and its carry, in float64."""
    member = MEMBERS[name]
    cell = member.make()
    return cell, *arguments_of(member, cell, Case(T, (B,), "plain", ()))[:2]


def example(name, seed, side="plain"):
    """A cell, random arguments (NaN in the padding), and cotangents of its outputs."""
    cell, params, carry = _member(name)
    rng = np.random.default_rng(seed)
    noise = MEMBERS[name].options.get("noise", 0.3)
    near = lambda tree, by: jax.tree.map(
        lambda a: a + by * rng.normal(size=a.shape), tree
    )
    params, carry, xs = (
        near(params, noise),
        near(carry, 1.0),
        rng.normal(size=(T, B, 3)),
    )
    if side == "both":
        mask, resets = rng.random((T, B)) < 0.7, rng.random((T, B)) < 0.3
        xs = np.where(mask[..., None], xs, np.nan)
        flags = Side(mask, resets)
    else:
        flags = Side()
    d_out = near(_outputs(name), 1.0)
    return cell, (params, carry, xs, flags), d_out


@functools.cache
def _outputs(name):
    """Zeros of their shapes."""
    cell, params, carry = _member(name)
    shapes = jax.eval_shape(
        partial(unrolls.bptt, cell), params, carry, np.zeros((T, B, 3))
    )
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)


def _pull(cell, chunk, params, carry, xs, side, d_out, unroll=unrolls.bptt):
    out, back = jax.vjp(
        lambda *a: unroll(cell, *a, side, chunk=chunk), params, carry, xs
    )
    return out, back(d_out)


pull = quick_jit(_pull, static_argnums=(0, 1), static_argnames="unroll")
"""`(carry, ys), (d_params, d_carry, d_xs)` for cotangents of the two outputs."""


def pull_of(name):
    return partial(pull, unroll=MEMBERS[name].unroll)


@partial(quick_jit, static_argnums=(0, 1))
def pull_fresh(cell, chunk, params, xs, d_out):
    """From the cell's own initial carry: its cotangent flows to params."""

    def run(params, xs):
        carry = cell.init_carry(params, (B,))
        return unrolls.bptt(cell, params, carry, xs, chunk=chunk)

    out, back = jax.vjp(run, params, xs)
    return out, back(d_out)


@partial(quick_jit, static_argnums=(0, 1))
def pull_many(cell, chunk, *stacked):
    return jax.vmap(partial(_pull, cell, chunk))(*stacked)


def zeros(tree):
    return jax.tree.map(np.zeros_like, tree)


def same(found, want, tolerance=TOLERANCE):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        assert np.shape(a) == np.shape(b)
        assert error(a, b) <= tolerance


def bitwise(found, want):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


def some(tree):
    """Not everything is zero, so that an equality says something."""
    assert any(np.abs(a).max() > 1e-3 for a in jax.tree.leaves(tree))


@every_cell
@some_examples
@given(seed=seeds, side=sides, a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_linear_in_the_cotangent(name, seed, side, a, b):
    cell, at, d = example(name, seed, side)
    e = example(name, seed + 1)[2]
    of = lambda d_out: pull(cell, CHUNK, *at, d_out)[1]
    combined = of(jax.tree.map(lambda x, y: a * x + b * y, d, e))
    first, second = of(d), of(e)
    some(first)
    for c, x, y in zip(*map(jax.tree.leaves, (combined, first, second)), strict=True):
        scale = 1 + 3 * np.abs(x).max() + 3 * np.abs(y).max()
        assert np.abs(c - (a * x + b * y)).max() <= TOLERANCE * scale


@every_cell
@some_examples
@given(seed=seeds, side=sides)
def test_no_cotangent_no_gradient(name, seed, side):
    cell, at, d_out = example(name, seed, side)
    grads = pull(cell, CHUNK, *at, zeros(d_out))[1]
    bitwise(grads, zeros(grads))
    some(pull(cell, CHUNK, *at, d_out)[1])


@every_cell
@some_examples
@given(seed=seeds, side=sides, order=st.permutations(range(B)))
def test_examples_in_another_order(name, seed, side, order):
    cell, (params, carry, xs, flags), (d_last, d_ys) = example(name, seed, side)
    states = lambda tree: jax.tree.map(lambda a: np.asarray(a)[order], tree)
    sequences = lambda tree: jax.tree.map(lambda a: np.asarray(a)[:, order], tree)
    (last, ys), (d_params, d_carry, d_xs) = pull(
        cell, CHUNK, params, carry, xs, flags, (d_last, d_ys)
    )
    found = pull(
        cell, CHUNK, params, states(carry), sequences(xs), sequences(flags),
        (states(d_last), sequences(d_ys)),
    )  # fmt: skip
    grads = d_params, states(d_carry), sequences(d_xs)
    same(found, ((states(last), sequences(ys)), grads))
    some(d_params)


@every_cell
@some_examples
@given(seed=seeds, side=sides, k=st.sampled_from([2, 6]))
def test_time_in_two_parts(name, seed, side, k):
    """The carry is handed on, its cotangent back; weights' gradients add up."""
    cell, (params, carry, *along), (d_last, d_ys) = example(name, seed, side)
    early, late = (
        jax.tree.map(lambda a, part=part: a[part], along)
        for part in (slice(k), slice(k, None))
    )
    run = partial(pull, cell, CHUNK, params)
    (middle, _), _ = run(carry, *early, (zeros(d_last), d_ys[:k]))
    (last, ys_2), (d_params_2, d_middle, d_xs_2) = run(
        middle, *late, (d_last, d_ys[k:])
    )
    (_, ys_1), (d_params_1, d_carry, d_xs_1) = run(carry, *early, (d_middle, d_ys[:k]))
    join = lambda a, b: np.concatenate([a, b])
    d_params = jax.tree.map(jnp.add, d_params_1, d_params_2)
    joined = (last, join(ys_1, ys_2)), (d_params, d_carry, join(d_xs_1, d_xs_2))
    same(joined, run(carry, *along, (d_last, d_ys)))
    some(d_params_1)


GARBAGE = [np.nan, np.inf, -np.inf, 1e300, -7.0]


@every_one
@some_examples
@given(seed=seeds, garbage=st.sampled_from(GARBAGE))
def test_nothing_is_read_at_a_masked_step(name, seed, garbage):
    """To the bit."""
    pull = pull_of(name)
    cell, (params, carry, xs, flags), d_out = example(name, seed, "both")
    real = flags.mask[..., None]
    filled = lambda value: np.where(real, xs, value)
    clean = pull(cell, CHUNK, params, carry, filled(0.0), flags, d_out)
    bitwise(pull(cell, CHUNK, params, carry, filled(garbage), flags, d_out), clean)
    d_params, _, d_xs = clean[1]
    np.testing.assert_array_equal(np.where(real, 0.0, d_xs), 0.0)
    some(d_params)


@every_one
@some_examples
@given(
    seed=seeds,
    where=st.lists(st.integers(0, T), min_size=4, max_size=4),
    garbage=st.sampled_from(GARBAGE),
)
def test_masked_steps_put_in_change_nothing(name, seed, where, garbage):
    """At any place, also before the first step and after the last."""
    pull = pull_of(name)
    cell, (params, carry, xs, _), (d_last, d_ys) = example(name, seed)
    put_in = lambda a, value: np.insert(a, where, value, 0)
    real = put_in(np.ones(T, bool), False)
    mask = np.broadcast_to(real[:, None], (T + 4, B))
    (last, ys), (d_params, d_carry, d_xs) = pull(
        cell, CHUNK, params, carry, put_in(xs, garbage), Side(mask),
        (d_last, put_in(d_ys, 0.0)),
    )  # fmt: skip
    found = (last, ys[real]), (d_params, d_carry, d_xs[real])
    same(found, pull(cell, CHUNK, params, carry, xs, Side(), (d_last, d_ys)))
    np.testing.assert_array_equal(d_xs[~real], 0.0)
    some(d_params)


@every_cell
@some_examples
@given(seed=seeds, side=sides)
def test_many_configurations_at_once_are_many_runs(name, seed, side):
    """`vmap` over all that is an array."""
    cell = _member(name)[0]
    runs = []
    for i in range(3):
        _, at, d_out = example(name, seed + i, side)
        runs.append((*at, d_out))
    found = pull_many(cell, CHUNK, *jax.tree.map(lambda *a: np.stack(a), *runs))
    for i, run in enumerate(runs):
        want = pull(cell, CHUNK, *run)
        same(jax.tree.map(lambda a, i=i: a[i], found), want)
        some(want[1])


@every_cell
@some_examples
@given(seed=seeds, side=sides, chunk=st.sampled_from([1, None]))
def test_any_chunk(name, seed, side, chunk):
    cell, at, d_out = example(name, seed, side)
    found = pull(cell, chunk, *at, d_out)
    same(found, pull(cell, CHUNK, *at, d_out))
    some(found[1])


@every_cell
@some_examples
@given(seed=seeds, garbage=st.sampled_from(GARBAGE))
def test_a_reset_before_the_first_step_is_a_fresh_carry(name, seed, garbage):
    """Whatever the carry was; and nothing flows back to it."""
    cell, (params, carry, xs, _), d_out = example(name, seed)
    resets = np.arange(T)[:, None] == np.zeros((1, B))
    old = jax.tree.map(lambda a: np.full_like(a, garbage), carry)
    out, (d_params, d_old, d_xs) = pull(
        cell, CHUNK, params, old, xs, Side(resets=resets), d_out
    )
    same((out, (d_params, d_xs)), pull_fresh(cell, CHUNK, params, xs, d_out))
    bitwise(d_old, zeros(d_old))
    some(d_params)
