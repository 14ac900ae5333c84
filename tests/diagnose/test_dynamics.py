"""Jacobians, Lyapunov exponents and Ω against exact values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from bptt_jax import Batch, Side, cells, diagnose, layers, objectives
from support import watching
from support.complex_cells import BY_HAND
from support.gradients import initial, quick_jit

LOSS = objectives.squared_error
KEY = jax.random.key(0)


def run(name, steps=5):
    cell = watching.cell(name)
    params = watching.params_of(cell)
    xs = np.random.default_rng(0).normal(size=(steps, watching.I))
    return cell, params, cell.init_carry(params, ()), xs


@pytest.mark.parametrize("name", ["lstm", "gru", "from_step"])
def test_jacobians_are_those_of_the_step(name):
    cell, params, carry, xs = run(name)
    got = diagnose.jacobians(cell, params, carry, xs)
    state, unravel = ravel_pytree(carry)
    step = lambda s, x: ravel_pytree(cell.step(params, unravel(s), x)[0])[0]
    both = quick_jit(lambda *at: (jax.jacfwd(step)(*at), step(*at)))
    for t, x in enumerate(xs):
        want, state = both(state, x)
        np.testing.assert_allclose(got[t], want, atol=1e-12)


def reals(s):
    return jnp.concatenate([s.real, s.imag])


def test_jacobians_of_a_complex_state_are_those_of_its_real_and_imaginary_parts():
    """Also where the step has no complex derivative."""
    params = jax.tree.map(lambda a: a.astype(complex), initial(BY_HAND, (0, 0)))
    rng = np.random.default_rng(0)
    xs, state = rng.normal(size=(4, 3)), rng.normal(size=8)
    carry = state[:4] + 1j * state[4:]
    got = diagnose.jacobians(BY_HAND, params, carry, xs)
    assert got.shape == (4, 8, 8)
    assert got.dtype == jnp.float64

    def step(s, x):
        return reals(BY_HAND.step(params, jax.lax.complex(s[:4], s[4:]), x)[0])

    both = quick_jit(lambda *at: (jax.jacfwd(step)(*at), step(*at)))
    for t, x in enumerate(xs):
        want, state = both(state, x)
        np.testing.assert_allclose(got[t], want, atol=1e-12)
    found = diagnose.lyapunov(BY_HAND, params, carry, xs)
    assert found.exponents.shape == (8,)
    logs = [np.linalg.slogdet(J)[1] for J in got]
    np.testing.assert_allclose(found.exponents.sum(), np.mean(logs), rtol=1e-9)
    np.testing.assert_allclose(reals(found.carry), state, rtol=1e-12)


def test_products_are_those_of_a_window():
    cell, params, carry, xs = run("lstm", 5)
    Js = diagnose.jacobians(cell, params, carry, xs)
    got = diagnose.products(Js, 2)
    np.testing.assert_allclose(
        got[1], np.asarray(Js[3]) @ np.asarray(Js[2]), atol=1e-13
    )
    assert got.shape == (2, 8, 8)
    assert not np.allclose(got[1], np.asarray(Js[2]) @ np.asarray(Js[3]))


def test_spectra_of_matrices():
    W = np.random.default_rng(0).normal(size=(3, 5, 5))
    want = np.linalg.svd(W, compute_uv=False)
    np.testing.assert_allclose(diagnose.singular_values(jnp.asarray(W)), want)
    radius = np.abs(np.linalg.eigvals(W)).max(-1)
    np.testing.assert_allclose(diagnose.spectral_radius(jnp.asarray(W)), radius)


def test_orthogonal_linear_network_is_an_isometry():
    cell = cells.elman(1, 6, activation=lambda a: a, param_dtype=jnp.float64)
    params = watching.params_of(cell)
    Js = diagnose.jacobians(cell, params, jnp.zeros(6), jnp.zeros((40, 1)))
    values = diagnose.singular_values(diagnose.products(Js, 40))
    np.testing.assert_allclose(values, 1.0, atol=1e-12)


def test_batches_are_refused():
    cell, params, _, xs = run("lstm")
    with pytest.raises(ValueError, match="those of one sequence"):
        diagnose.jacobians(cell, params, cell.init_carry(params, (2,)), xs)
    with pytest.raises(ValueError, match="window: expected 1 to 5"):
        diagnose.products(jnp.ones((5, 2, 2)), 6)


# Lyapunov


def map_of(f, n):
    """A map `s -> f(parameter, s)` as a cell without inputs."""

    def step(p, s, x):
        del x
        s = f(p["a"], s)
        return s, s

    return cells.from_step(
        step, lambda key: dict(a=jnp.zeros(())), lambda p, shape: jnp.zeros((*shape, n))
    )


def henon(a, s):
    return jnp.stack([1 - a * s[..., 0] ** 2 + s[..., 1], 0.3 * s[..., 0]], -1)


def logistic(r, s):
    return r * s * (1 - s)


def test_henon_map():
    found = diagnose.lyapunov(
        map_of(henon, 2), dict(a=jnp.float64(1.4)), jnp.array([0.1, 0.1]), None,
        length=20_000, discard=1000,
    )  # fmt: skip
    assert abs(found.exponents[0] - 0.419) < 0.01
    np.testing.assert_allclose(found.exponents.sum(), np.log(0.3), atol=1e-9)


def test_logistic_map():
    found = diagnose.lyapunov(
        map_of(logistic, 1), dict(a=jnp.float64(4.0)), jnp.array([0.1234]), None,
        length=40_000, every=4,
    )  # fmt: skip
    np.testing.assert_allclose(found.exponents[0], np.log(2), atol=2e-3)


def tanh_network(W):
    cell = cells.elman(1, len(W), param_dtype=jnp.float64)
    params = watching.params_of(cell)
    return cell, params | dict(w_h=jnp.asarray(W.T))


def test_random_network_at_its_fixed_point():
    """g < 1: the state goes to zero, and λ_1 to the log of the radius of gW."""
    N = 40
    W = 0.5 * np.random.default_rng(0).normal(size=(N, N)) / np.sqrt(N)
    cell, params = tanh_network(W)
    start = 0.1 * jnp.ones(N)
    found = diagnose.lyapunov(
        cell, params, start, jnp.zeros((1500, 1)), n=2, every=5, discard=100
    )
    want = np.log(np.abs(np.linalg.eigvals(W)).max())
    np.testing.assert_allclose(found.exponents[0], want, atol=5e-3)
    assert abs(found.exponents[0] - want) < abs(found.history[3, 0] - want) + 1e-3


def test_sum_is_the_mean_log_determinant():
    cell, params, carry, xs = run("gru", 30)
    found = diagnose.lyapunov(cell, params, carry, xs)
    Js = diagnose.jacobians(cell, params, carry, xs)
    logs = np.linalg.slogdet(Js)[1]
    np.testing.assert_allclose(found.exponents.sum(), logs.mean(), atol=1e-12)
    later = diagnose.lyapunov(cell, params, carry, xs, discard=10).exponents.sum()
    np.testing.assert_allclose(later, logs[10:].mean(), atol=1e-12)
    assert (np.diff(found.exponents) < 0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(n=9), "n: expected 1 to 4"),
        (dict(every=31), "every: expected 1 to 30"),
        (dict(every=4, discard=6), "discard: expected a multiple of 4"),
    ],
)
def test_lyapunov_refuses(options, message):
    cell, params, carry, xs = run("gru", 30)
    with pytest.raises(ValueError, match=message):
        diagnose.lyapunov(cell, params, carry, xs, **options)


# Ω


def omega_of_loop(cell, params, states, deltas, xs):
    """(1) with Jacobians by jax.jacfwd, states and cotangents held."""

    def one(state, delta, x):
        (flat, unravel), (delta, _) = ravel_pytree(state), ravel_pytree(delta)

        def step(s):
            return ravel_pytree(cell.step(params, unravel(s), x)[0])[0]

        pulled = delta @ jax.jacfwd(step)(flat)
        return (pulled @ pulled / (delta @ delta) - 1) ** 2

    return jax.vmap(jax.vmap(one))(states, deltas, xs).mean()


@pytest.mark.parametrize("name", ["elman", "lstm"])
def test_omega_is_that_of_jacobians(name):
    cell = watching.cell(name)
    layer, params = layers.recurrent(cell), watching.params_of(cell)
    xs = watching.batch(steps=4).inputs
    rng = np.random.default_rng(4)
    batch = Batch(xs, Side(targets=rng.normal(size=(4, 2, watching.H))))
    found = diagnose.omega(layer, LOSS, params, batch, chunk=2)
    flow = diagnose.gradient_flow(layer, LOSS, params, batch)

    def looped(params, deltas):
        states, carry = [], cell.init_carry(params, (2,))
        for x in xs:
            states.append(carry)
            carry, _ = cell.step(params, carry, x)
        states = jax.tree.map(lambda *a: jnp.stack(a), *states)
        held = jax.lax.stop_gradient(states)
        return omega_of_loop(cell, params, held, deltas, xs)

    value, grads = quick_jit(jax.value_and_grad(looped))(params, flow.d_states[0])
    np.testing.assert_allclose(found.value, value, rtol=1e-10)
    np.testing.assert_allclose(found.loss, flow.loss, rtol=1e-12)
    for a, b in zip(*map(jax.tree.leaves, (found.d_params, grads)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)
    assert np.abs(grads["w_h"]).max() > 1e-3


def test_regularised_adds_omega_at_the_recurrent_weights():
    model, batch = watching.model(), watching.batch(ragged=True, steps=4)
    params = watching.params_of(model)
    found = diagnose.omega(model, LOSS, params, batch)
    estimator = diagnose.regularised(model, LOSS, alpha=0.5)
    loss, grads, _, _, metrics = quick_jit(estimator.grad)(params, (), batch, KEY)
    np.testing.assert_allclose(loss, found.loss)
    np.testing.assert_allclose(metrics["omega"], found.value)
    for g, a, b in zip(*map(jax.tree.leaves, (grads, found.grads, found.d_params)),
                       strict=True):  # fmt: skip
        np.testing.assert_allclose(g, a + 0.5 * b, atol=1e-12)
    assert not np.any(found.d_params[2]["kernel"])
    assert np.any(found.d_params[1]["w_h"])


def test_omega_does_not_see_the_padding():
    """The same examples, some steps longer and masked there; and a reset counts for none."""
    model, short = watching.model("elman"), watching.batch(steps=5)
    params = watching.params_of(model)

    def longer(a):
        return np.concatenate([a, np.full((3, *a.shape[1:]), np.nan)])

    mask = np.arange(8)[:, None] < np.full(2, 5)
    padded = Batch(longer(short.inputs), Side(mask, targets=longer(short.side.targets)))
    want, got = (
        diagnose.omega(model, LOSS, params, b, chunk=3) for b in (short, padded)
    )
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    every = short._replace(side=short.side._replace(resets=np.ones((5, 2), bool)))
    assert float(diagnose.omega(model, LOSS, params, every).value) == 0


def test_omega_of_nothing_is_zero():
    """A loss that asks for nothing: no ratio, no NaN."""
    model = layers.recurrent(watching.cell("elman"))
    params = jax.tree.map(np.zeros_like, watching.params_of(model))
    batch = Batch(np.ones((3, 2, 3)), Side(targets=np.zeros((3, 2, watching.H))))
    found = diagnose.omega(model, LOSS, params, batch)
    assert float(found.value) == 0
    assert all(np.all(np.asarray(a) == 0) for a in jax.tree.leaves(found.d_params))
