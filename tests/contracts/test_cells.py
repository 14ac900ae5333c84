"""The laws of cells, over every member; the gradients are in `test_gradients`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import _pytrees as trees
from bptt_jax import cells, unrolls
from bptt_jax.cells._from_step import closed_over
from bptt_jax.types import Side
from support.gradients import Case, arguments_of, floating, quick_jit
from support.members import CELLS

pytestmark = pytest.mark.parametrize("member", CELLS.values(), ids=list(CELLS))
K, B = 3, 2


def stretch(member, cell=None):
    """A cell with K steps of arguments, and what `linearize` makes of them."""
    cell = member.make() if cell is None else cell
    at = arguments_of(member, cell, Case(K, (B,), "plain", ()))
    xs = (at.xs, jax.random.split(jax.random.key(0), K)) if cell.keyed else at.xs
    return cell, at.params, at.carry, xs


def first(tree):
    return jax.tree.map(lambda a: a[0], tree)


def coefficients(cell, params, carry, xs):
    us = cell.vjp.project(params, xs)
    nexts, _ = jax.lax.scan(
        lambda c, u: (cells.forward(cell, params, c, u)[0],) * 2, carry, us
    )[::-1]
    return cells.linearize(cell, params, trees.before(carry, nexts), us, nexts)


def test_step_is_forward_of_project(member):
    cell, params, carry, xs = stretch(member)
    by_step = cell.step(params, carry, first(xs))
    us = cell.vjp.project(params, xs)
    chex.assert_trees_all_close(
        by_step, cells.forward(cell, params, carry, first(us)), rtol=1e-12
    )


def test_output_is_the_part_of_the_state_that_it_says(member):
    cell, params, carry, xs = stretch(member)
    after, y = cell.step(params, carry, first(xs))
    if cell.output:
        chex.assert_trees_all_equal(y, cell.output(after))


def test_named_gates_are_those_of_all_steps(member):
    """Within masks, resets, zoneout and a learned carry, too: `[K, B, H]` each."""
    cell, params, carry, xs = stretch(member)
    us = cell.vjp.project(params, xs)
    carries = jax.tree.map(lambda a: jnp.stack([a] * K), carry)
    found = cells.named_gates(cell, params, carries, us)
    if not found:
        return
    flags = jnp.ones((K, B), bool)
    for name, a in found.items():
        assert a.shape == (K, B, jax.tree.leaves(carry)[-1].shape[-1]), name
        assert np.abs(a).max() < 1, name
    for outer, inputs in (
        (cells.masked(cell), (xs, flags)),
        (cells.resets(cell), (xs, ~flags)),
    ):
        us = outer.vjp.project(params, inputs)
        shown = cells.named_gates(outer, params, carries, us)
        chex.assert_trees_all_close(shown, found, rtol=1e-14)


def test_backward_is_linear(member):
    cell, params, carry, xs = stretch(member)
    coeffs = first(coefficients(cell, params, carry, xs))
    d = [_random_like(cell.step(params, carry, first(xs)), seed) for seed in (0, 1)]
    a, b = (cell.vjp.backward(params, coeffs, *each) for each in d)
    mixed = jax.tree.map(lambda x, y: 2 * x - 3 * y, *d)
    want = jax.tree.map(lambda x, y: 2 * x - 3 * y, a, b)
    chex.assert_trees_all_close(
        cell.vjp.backward(params, coeffs, *mixed), want, rtol=1e-12, atol=1e-12
    )


def _random_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), tree)


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
    params = cell.init(jax.random.key(0))
    dtypes = {a.dtype for _, a in floating(params)}
    assert len(dtypes) == 1
    for batch_shape in ((), (2,), (2, 3)):
        carry = cell.init_carry(params, batch_shape)
        for _, a in floating(carry):
            assert a.shape[: len(batch_shape)] == batch_shape
            assert {a.dtype} == dtypes
    keys = jax.random.split(jax.random.key(0), 2)
    (again,) = {jax.tree.structure(cell.init(key)) for key in keys}
    assert again == jax.tree.structure(params)


def test_bfloat16_computation_keeps_float32_gradients(member):
    cell = cells.in_dtype(member.make(), jnp.bfloat16)
    params = trees.cast_floating(cell.init(jax.random.key(0)), jnp.float32)
    xs = jnp.ones((K, B, member.inputs), jnp.float32)

    def loss(params):
        carry, ys = unrolls.bptt(
            cell, params, cell.init_carry(params, (B,)), xs, Side()
        )
        assert {a.dtype for _, a in floating((carry, ys))} == {jnp.dtype(jnp.bfloat16)}
        return sum(a.astype(jnp.float32).sum() for a in jax.tree.leaves(ys))

    for name, d in floating(quick_jit(jax.grad(loss))(params)):
        assert d.dtype == jnp.float32, name
        assert jnp.isfinite(d).all(), name
