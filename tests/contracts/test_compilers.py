"""Advice for one compiler is given to it alone; speed does not hang on a function's name."""

import functools
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
from support.gradients import initial

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


@functools.cache
def traced(cell):
    params = jax.eval_shape(cell.init, jax.random.key(0))
    with loops.preferred(loops.step_by_step):
        f = jax.jit(lambda p: gradient(cell, np.ones((4, 2, 3), "f"), p))
        return f.trace(params)


def lowered(platform, cell):
    return traced(cell).lower(lowering_platforms=(platform,)).as_text()


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
    params = jax.eval_shape(cell.init, jax.random.key(0))
    states = len(jax.tree.leaves(jax.eval_shape(lambda: cell.init_carry(params, ()))))
    for platform in ("cuda", "tpu"):
        *steps, deltas = barriers(lowered(platform, cell))
        assert set(steps) == {states}
        assert deltas >= 1


def test_one_program_for_several_platforms():
    cell = cells.lstm(3, 4)
    params, xs = initial(cell, (0, 0)), np.ones((4, 2, 3), "f")
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

    @jax.jit
    def derivatives(x):
        along = jax.jvp(square, (x,), (x,))[1]
        return jax.grad(square)(x), jax.hessian(square)(x), along

    x = np.arange(3, dtype="f")
    gradient, hessian, along = derivatives(x)
    np.testing.assert_array_equal(gradient, 2 * x)
    np.testing.assert_array_equal(hessian, 2 * np.eye(3))
    np.testing.assert_array_equal(along, 2 * (x * x).sum())
    assert hold(()) == ()


@functools.cache
def floats(activation) -> float:
    """Operations of a gradient of an Elman network."""
    cell = cells.elman(3, 16, activation=activation)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    run = jax.jit(lambda p: gradient(cell, np.ones((4, 2, 3), "f"), p))
    return run.lower(params).compile().cost_analysis()["flops"]


def of_twice(z):
    return jnp.tanh(2 * z)


def calls_tanh(z):
    return jax.jit(lax.tanh)(z)


@pytest.mark.parametrize("same", [lax.tanh, calls_tanh, lambda z: jnp.tanh(z)])
def test_any_function_that_is_tanh_costs_what_tanh_costs(same):
    assert floats(same) == floats(jnp.tanh)
    assert floats(of_twice) > 1.3 * floats(jnp.tanh)


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
    xs = np.ones((3, 2, 3), "f")
    for activation in (passing, lambda z: jnp.maximum(z, 0.0)):
        cell = cells.elman(3, 4, activation=activation)
        params = jax.tree.map(np.zeros_like, initial(cell, (0, 0)))
        params = params | dict(w_h=np.eye(4, dtype="f"))

        def loss(params, unroll, cell=cell):
            carry = cell.init_carry(params, (2,))
            return unroll(cell, params, carry, xs)[1].sum()

        gradients = jax.jit(jax.grad(loss), static_argnums=1)
        got, want = (gradients(params, u) for u in (unrolls.bptt, unrolls.scan))
        for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
