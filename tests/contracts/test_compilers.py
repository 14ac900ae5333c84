"""Advice for one compiler is given to it alone; speed does not hang on a function's name."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from bptt_jax import cells, loops, unrolls
from bptt_jax._jax import enable_x64
from bptt_jax.cells._activations import from_output
from bptt_jax.cells._hold import hold
from support.compiled import hlo_as_users

pytestmark = hlo_as_users


@pytest.fixture(autouse=True, scope="module")
def float32():
    with enable_x64(False):
        yield


def gradient(cell, xs, params):
    def loss(params):
        carry = cell.init_carry(params, xs.shape[1:-1])
        return unrolls.bptt(cell, params, carry, xs)[1].sum()

    return jax.grad(loss)(params)


def lowered(platform, cell):
    params = cell.init(jax.random.key(0))
    with loops.preferred(loops.step_by_step):
        f = jax.jit(lambda p: gradient(cell, jnp.ones((4, 2, 3)), p))
        traced = f.trace(params)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def barriers(text) -> list[int]:
    """How many arrays each holds."""
    found = re.findall(r"(?:= |^ *)stablehlo\.optimization_barrier (.*?) :", text, re.M)
    return [len(operands.split(",")) for operands in found]


@pytest.mark.parametrize("name", ["lstm", "gru", "mgu"])
def test_barriers_on_gates_are_for_the_cpu_alone(name):
    """Elsewhere those of the unrolled loops are left: the state before each step, once the
    deltas.
    """
    cell = getattr(cells, name)(3, 4)
    assert barriers(lowered("cpu", cell))
    states = len(jax.tree.leaves(cell.init_carry(cell.init(jax.random.key(0)), ())))
    for platform in ("cuda", "tpu"):
        *steps, deltas = barriers(lowered(platform, cell))
        assert set(steps) == {states}
        assert deltas >= 1


def test_one_program_for_several_platforms():
    cell = cells.lstm(3, 4)
    params, xs = cell.init(jax.random.key(0)), jnp.ones((4, 2, 3))
    run = jax.jit(lambda p: gradient(cell, xs, p))
    shipped = export.export(run, platforms=("cpu", "tpu", "cuda"))(params)
    got, want = export.deserialize(shipped.serialize()).call(params), run(params)
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_hold_is_the_identity_whatever_is_done_to_it():
    a = {"x": jnp.arange(3.0), "y": (jnp.ones((3, 2)),)}
    for f in (hold, jax.jit(hold), jax.vmap(hold)):
        for x, y in zip(*map(jax.tree.leaves, (f(a), a)), strict=True):
            np.testing.assert_array_equal(x, y)
    square = lambda x: (hold(x) ** 2).sum()
    x = jnp.arange(3.0)
    np.testing.assert_array_equal(jax.grad(square)(x), 2 * x)
    np.testing.assert_array_equal(jax.hessian(square)(x), 2 * jnp.eye(3))
    np.testing.assert_array_equal(jax.jvp(square, (x,), (x,))[1], 2 * (x * x).sum())
    assert hold(()) == ()


def floats(activation) -> float:
    """Operations of a gradient of an Elman network."""
    cell = cells.elman(3, 16, activation=activation)
    params = cell.init(jax.random.key(0))
    run = jax.jit(lambda p: gradient(cell, jnp.ones((4, 2, 3)), p))
    return run.lower(params).compile().cost_analysis()["flops"]


def calls_tanh(z):
    return jax.jit(lax.tanh)(z)


@pytest.mark.parametrize("same", [lax.tanh, calls_tanh, lambda z: jnp.tanh(z)])
def test_any_function_that_is_tanh_costs_what_tanh_costs(same):
    assert floats(same) == floats(jnp.tanh)
    assert floats(lambda z: jnp.tanh(2 * z)) > 1.3 * floats(jnp.tanh)


@jax.custom_jvp
def passing(z):
    """tanh whose gradient passes straight through."""
    return jnp.tanh(z)


passing.defjvp(lambda primals, tangents: (jnp.tanh(*primals), *tangents))


@pytest.mark.parametrize(
    ("activation", "known"),
    [
        (jax.nn.relu, True),
        (lambda z: jax.nn.relu(z), True),
        (jax.nn.sigmoid, True),
        (lambda z: z, True),
        (passing, False),  # a rule of its own
        (lambda z: jnp.maximum(z, 0), False),  # half a slope at 0
        (jax.nn.softplus, False),
        (lambda z: z + 1, False),
        (lambda z: z > 0, False),
    ],
)
def test_a_slope_is_read_off_the_output_where_that_is_the_functions_own(
    activation, known
):
    assert (from_output(activation) is not None) == known
    if known:
        z = jnp.linspace(-2, 2, 9)
        h, d = jax.jvp(activation, (z,), (jnp.ones_like(z),))
        np.testing.assert_allclose(from_output(activation)(h), d, rtol=1e-5)


def test_a_rule_of_its_own_is_what_counts():
    xs = jnp.ones((3, 2, 3))
    for activation in (passing, lambda z: jnp.maximum(z, 0.0)):
        cell = cells.elman(3, 4, activation=activation)
        params = jax.tree.map(jnp.zeros_like, cell.init(jax.random.key(0)))
        params = params | dict(w_h=jnp.eye(4))

        def loss(params, unroll, cell=cell):
            carry = cell.init_carry(params, (2,))
            return unroll(cell, params, carry, xs)[1].sum()

        got, want = (jax.grad(loss)(params, u) for u in (unrolls.bptt, unrolls.scan))
        for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
