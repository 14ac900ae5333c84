"""`gradient_flow` and `contributions` against loops in Python and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import Side, cells, diagnose, estimators, layers, objectives, unrolls
from support import watching

LOSS = objectives.squared_error
KEY = jax.random.key(0)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", ["lstm", "elman", "from_step"])
def test_is_the_gradient_of_a_zero_added_to_each_state(name, ragged):
    model, batch = watching.model(name), watching.batch(ragged)
    params = watching.params_of(model)
    flow = diagnose.gradient_flow(model, LOSS, params, batch, chunk=3)

    zeros = watching.zeros_after(name, params, batch)
    count = watching.real_steps(batch)
    loss = lambda p, z: sum(watching.losses_of_loop(name, p, batch, z)) / count
    value, (d_params, d_zeros) = jax.jit(jax.value_and_grad(loss, (0, 1)))(
        params, zeros
    )
    np.testing.assert_allclose(flow.loss, value, rtol=1e-12)
    for got, want in zip(*map(jax.tree.leaves, (flow.grads, d_params)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)
    by_step = jax.tree.map(lambda *a: np.stack(a), *d_zeros)
    for got, want in zip(*map(jax.tree.leaves, (flow.d_states, by_step)), strict=True):
        assert np.abs(want[0]).max() > 1e-6, "the gradient vanished"
        np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_does_not_depend_on_the_chunk(steps):
    model, batch = watching.model(), watching.batch(steps=steps)
    params = watching.params_of(model)
    one, default = (
        diagnose.contributions(model, LOSS, params, batch, chunk=k) for k in (1, None)
    )
    for a, b in zip(*map(jax.tree.leaves, (one, default)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_gradients_are_those_of_the_estimator():
    model, batch = watching.model(), watching.batch(ragged=True)
    params = watching.params_of(model)
    want = estimators.exact(model, LOSS).grad(params, (), batch, KEY)[1]
    for f in (diagnose.gradient_flow, diagnose.contributions):
        got = f(model, LOSS, params, batch).grads
        for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_norms_of_contributions():
    """δ_t = dL/dh_t (1 - h_t²); with one example |a ⊗ δ| is a product of norms."""
    layer = layers.recurrent(watching.cell("elman"))
    params = watching.params_of(layer)
    batch = watching.batch()
    batch = batch._replace(side=Side(targets=jnp.ones((watching.T, 2, watching.H))))
    found = diagnose.contributions(layer, LOSS, params, batch)
    _, hs = unrolls.bptt(layer, params, jnp.zeros((2, watching.H)), batch.inputs)
    delta = np.asarray(found.d_states[0] * (1 - hs**2))
    before = np.concatenate([np.zeros_like(hs[:1]), hs[:-1]])
    each = np.einsum("tbi,tbj->tij", before, delta)
    want = np.sqrt((each**2).sum((1, 2)))
    np.testing.assert_allclose(found.norms[0]["w_h"], want, atol=1e-13)
    apart = np.sqrt(
        (np.einsum("tbi,tbj->tbij", before, delta) ** 2).sum((1, 2, 3))
    )  # what it would be if examples did not add up first
    assert not np.allclose(want[1:], apart[1:], rtol=1e-3)

    one = jax.tree.map(lambda a: a[:, :1], batch)
    found = diagnose.contributions(layer, LOSS, params, one)
    delta = np.asarray(found.d_states[0] * (1 - hs[:, :1] ** 2))
    product = np.linalg.norm(one.inputs, axis=-1) * np.linalg.norm(delta, axis=-1)
    np.testing.assert_allclose(found.norms[0]["w_x"], product[:, 0], atol=1e-13)


def test_a_wrong_backward_shows():
    cell = watching.cell("gru")

    def wrong(p, coeffs, d_h, d_y):
        d_before, delta = cell.vjp.backward(p, coeffs, d_h, d_y)
        return 0.9 * d_before, delta

    mutant = cell._replace(vjp=cell.vjp._replace(backward=wrong))
    batch = watching.batch()
    batch = batch._replace(side=Side(targets=jnp.ones((watching.T, 2, watching.H))))
    params = watching.params_of(cell)
    right, other = (
        diagnose.gradient_flow(layers.recurrent(c), LOSS, params, batch).d_states[0]
        for c in (cell, mutant)
    )
    np.testing.assert_allclose(right[-1], other[-1], atol=1e-14)
    assert np.abs(right[0] - other[0]).max() > 1e-3 * np.abs(right[0]).max()


def test_paths_name_the_parts():
    model, batch = watching.model(), watching.batch()
    params = watching.params_of(model)
    carry = model.init_carry(params, (2,))
    (last, ys), back = unrolls.pullback(
        model, params, carry, batch.inputs, watch=lambda s: (unrolls.contract(s), s.xs)
    )
    found = back(*jax.tree.map(jnp.zeros_like, (last, ys)))
    assert [jax.tree_util.keystr(p) for p in found.paths] == ["[0]", "[1]"]
    np.testing.assert_array_equal(found.seen[0], batch.inputs)


def test_a_layer_without_a_state_is_refused():
    layer, batch = layers.dense(3, 2), watching.batch()
    with pytest.raises(ValueError, match="expected one with a recurrent part"):
        diagnose.gradient_flow(
            layer, LOSS, params=watching.params_of(layer), batch=batch
        )


# Hooks


LINEAR = cells.elman(3, 4, activation=lambda a: a, param_dtype=jnp.float64)


def backward(hook, cell=LINEAR, aux=None, steps=6):
    """The cotangents of the inputs of one long pull from the last state."""
    params = watching.params_of(cell)
    carry = cell.init_carry(params, (2,))
    xs = jnp.asarray(np.random.default_rng(3).normal(size=(steps, 2, 3)))
    layer = layers.recurrent(cell, on_d_carry=hook)

    def last(params, xs):
        carry_, _ = unrolls.bptt(layer, params, carry, xs, Side(aux=aux))
        return sum(jnp.vdot(a, a) for a in jax.tree.leaves(carry_))

    return jax.grad(last, (0, 1))(params, xs), (params, carry, xs)


def test_clip_d_carry_is_that_of_a_loop():
    (_, got), (params, carry, xs) = backward(layers.clip_d_carry(0.5))
    w_x, w_h = np.asarray(params["w_x"]), np.asarray(params["w_h"])
    h = np.asarray(carry)
    for x in np.asarray(xs):
        h = x @ w_x + h @ w_h
    d, want = 2 * h, []
    for _ in xs:
        norm = np.linalg.norm(d, axis=-1, keepdims=True)
        d = d * np.minimum(1, 0.5 / norm)
        want.append(d @ w_x.T)
        d = d @ w_h.T
    np.testing.assert_allclose(got, np.stack(want[::-1]), atol=1e-13)
    (_, free), _ = backward(layers.clip_d_carry(1e9))
    (_, exact), _ = backward(None)
    np.testing.assert_allclose(free, exact, atol=1e-13)
    assert not np.allclose(got, exact)


def test_scale_d_carry_discounts_by_lag():
    (_, got), _ = backward(layers.scale_d_carry(0.5))
    (_, exact), _ = backward(None)
    gains = 0.5 ** np.arange(6, 0, -1.0)[:, None, None]
    np.testing.assert_allclose(got, gains * exact, atol=1e-13)


@pytest.mark.parametrize("blocked", [True, False])
def test_h_detach_blocks_the_way_through_h(blocked):
    cell = watching.cell("lstm")
    aux = jnp.full(6, blocked).at[-1].set(False)  # the last state's own cotangent stays
    (got, _), (params, carry, xs) = backward(layers.h_detach, cell, aux)

    def last(params):
        state = carry
        for x in xs:
            h = jax.lax.stop_gradient(state.h) if blocked else state.h
            state, _ = cell.step(params, state._replace(h=h), x)
        return sum(jnp.vdot(a, a) for a in jax.tree.leaves(state))

    want = jax.grad(last)(params)
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_hooks_refuse():
    with pytest.raises(ValueError, match="max_norm: expected a positive"):
        layers.clip_d_carry(0.0)
    with pytest.raises(TypeError, match="carry of an LSTM, got .*Tracer"):
        backward(layers.h_detach, LINEAR, jnp.ones(6, bool))
