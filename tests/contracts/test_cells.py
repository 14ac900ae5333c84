"""The laws of cells, over every member; the gradients are in `test_gradients`."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import _pytrees as trees
from bptt_jax import cells, layers, loops, unrolls
from bptt_jax.cells._from_step import closed_over
from bptt_jax.types import Side
from support.gradients import Case, arguments_of, floating, quick_jit
from support.members import CELLS

pytestmark = pytest.mark.parametrize("member", CELLS.values(), ids=list(CELLS))
K, B = 3, 2
NAMES = {id(member): name for name, member in CELLS.items()}


def first(tree):
    return jax.tree.map(lambda a: a[0], tree)


def coefficients(cell, params, carry, xs):
    us = cell.vjp.project(params, xs)
    nexts, _ = jax.lax.scan(
        lambda c, u: (cells.forward(cell, params, c, u)[0],) * 2, carry, us
    )[::-1]
    return cells.linearize(cell, params, trees.before(carry, nexts), us, nexts)


def gates_by_name(cell, params, carry, xs):
    """With K steps of the same state, also within a mask and resets that do nothing."""
    carries = jax.tree.map(lambda a: jnp.stack([a] * K), carry)
    flags = jnp.ones((K, B), bool)
    of_each = {
        "alone": (cell, xs),
        "masked": (cells.masked(cell), (xs, flags)),
        "resets": (cells.resets(cell), (xs, ~flags)),
    }
    return {
        name: cells.named_gates(each, params, carries, each.vjp.project(params, inputs))
        for name, (each, inputs) in of_each.items()
    }


@functools.cache
def laws(name):
    """Both sides of each law, for K steps of arguments: one program for a member."""
    member = CELLS[name]
    cell = member.make()
    at = arguments_of(member, cell, Case(K, (B,), "plain", ()))
    keys = jax.random.split(jax.random.key(0), K)

    def run(params, carry, xs):
        xs = (xs, keys) if cell.keyed else xs
        after, y = by_step = cell.step(params, carry, first(xs))
        us = cell.vjp.project(params, xs)
        coeffs = first(coefficients(cell, params, carry, xs))
        back = functools.partial(cell.vjp.backward, params, coeffs)
        a, b = (_random_like(by_step, seed) for seed in (0, 1))
        return dict(
            step=(by_step, cells.forward(cell, params, carry, first(us))),
            output=(y, cell.output(after)) if cell.output else (),
            backward=(back(*_mixed(a, b)), _mixed(back(*a), back(*b))),
            gates=gates_by_name(cell, params, carry, xs),
        )

    return quick_jit(run)(*at[:3]), at.carry


def _mixed(a, b):
    return jax.tree.map(lambda x, y: 2 * x - 3 * y, a, b)


def _random_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), tree)


def found(member, law):
    return laws(NAMES[id(member)])[0][law]


def test_step_is_forward_of_project(member):
    chex.assert_trees_all_close(*found(member, "step"), rtol=1e-12)


def test_output_is_the_part_of_the_state_that_it_says(member):
    if member.make().output:
        chex.assert_trees_all_equal(*found(member, "output"))


def test_named_gates_are_those_of_all_steps(member):
    """Within masks, resets, zoneout and a learned carry, too: `[K, B, H]` each."""
    gates, (_, carry) = found(member, "gates"), laws(NAMES[id(member)])
    if not gates["alone"]:
        return
    for name, a in gates["alone"].items():
        assert a.shape == (K, B, jax.tree.leaves(carry)[-1].shape[-1]), name
        assert np.abs(a).max() < 1, name
    for within in ("masked", "resets"):
        chex.assert_trees_all_close(gates[within], gates["alone"], rtol=1e-14)


def test_backward_is_linear(member):
    chex.assert_trees_all_close(*found(member, "backward"), rtol=1e-12, atol=1e-12)


def test_coefficients_are_of_the_size_of_the_state(member):
    """A weight among them would be copied for each step: H² instead of H."""

    def floats_per_step(n):
        cell = member.make(n)

        def run(key):
            params = cell.init(key)
            xs = jnp.zeros((K, B, member.inputs), jnp.float64)
            xs = (xs, jax.random.split(key, K)) if cell.keyed else xs
            params = trees.cast_floating(params, jnp.float64)
            return coefficients(cell, params, cell.init_carry(params, (B,)), xs)

        shapes = jax.eval_shape(run, jax.random.key(0))
        return sum(np.prod(a.shape[1:]) for _, a in floating(shapes))

    assert floats_per_step(16) <= 2 * floats_per_step(8)


def test_factory_is_cached(member):
    assert member.make() is member.make()
    assert hash(member.make()) == hash(member.make())


def test_closes_over_no_array(member):
    cell = member.make()
    functions = [*cell[:3], *cell.vjp, cell.output]
    found = [array for f in functions for array in closed_over(f, "cell")]
    assert found == []


def test_shapes_and_dtypes(member):
    cell = member.make()
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(cell.init, key)
    dtypes = {a.dtype for _, a in floating(params)}
    assert len(dtypes) == 1
    for batch_shape in ((), (2,), (2, 3)):
        carry = jax.eval_shape(lambda p, b=batch_shape: cell.init_carry(p, b), params)
        for _, a in floating(carry):
            assert a.shape[: len(batch_shape)] == batch_shape
            assert {a.dtype} == dtypes


def test_bfloat16_computation_keeps_float32_gradients(member):
    """The numbers, and that they are finite, are in `test_gradients` and `test_unrolls`."""
    cell = layers.recurrent(
        cells.in_dtype(member.make(), jnp.bfloat16), loop=loops.step_by_step
    )
    xs = jax.ShapeDtypeStruct((K, B, member.inputs), jnp.float32)

    def loss(params, xs):
        carry, ys = unrolls.bptt(
            cell, params, cell.init_carry(params, (B,)), xs, Side()
        )
        assert {a.dtype for _, a in floating((carry, ys))} == {jnp.dtype(jnp.bfloat16)}
        return sum(a.astype(jnp.float32).sum() for a in jax.tree.leaves(ys))

    params = jax.eval_shape(
        lambda: trees.cast_floating(cell.init(jax.random.key(0)), jnp.float32)
    )
    for name, d in floating(jax.eval_shape(jax.grad(loss, (0, 1)), params, xs)):
        assert d.dtype == jnp.float32, name
