"""Gradients that are known in closed form, without any autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import Side, cells, unrolls
from bptt_jax.verify._cases import Arguments
from support.gradients import QUICK, error, gradients, quick_jit, worst

B, I, H = 2, 3, 4
EXACT = 1e-12


def linear(z):
    return z


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@functools.partial(quick_jit, static_argnums=(0, 1))
def pull(cell, chunk, params, carry, xs, d_out):
    """Outputs, and the gradients of params, carry and xs for cotangents of them."""
    out, back = jax.vjp(
        lambda *a: unrolls.bptt(cell, *a, chunk=chunk), params, carry, xs
    )
    return out, back(d_out)


def linear_net(scale=1.0):
    cell = cells.elman(I, H, activation=linear)
    w_h = scale * np.linalg.qr(normal(1, H, H))[0]
    return cell, dict(w_x=normal(2, I, H), w_h=w_h, b=normal(3, H))


# A linear recurrence: products of one matrix


@pytest.mark.parametrize("steps", [1, 2, 7, 60])
def test_linear_recurrence_has_powers_of_the_matrix(steps):
    cell, params = linear_net(1.02)
    carry, xs = normal(4, H), normal(5, steps, I)

    def last(carry, xs):
        return unrolls.bptt(cell, params, carry, xs, chunk=4)[0]

    by_carry, by_xs = quick_jit(jax.jacrev(last, (0, 1)))(carry, xs)
    power = functools.partial(np.linalg.matrix_power, params["w_h"])
    assert error(by_carry, power(steps).T) <= EXACT
    for t in range(steps):
        want = (params["w_x"] @ power(steps - 1 - t)).T
        assert error(by_xs[:, t], want) <= EXACT


def test_linear_recurrence_gradient_of_the_weights():
    """dL/dW_h = Σ h_{t-1} ⊗ delta_t with delta_t = Σ_{s≥t} d y_s (W_hᵀ)^{s-t}."""
    steps = 9
    cell, params = linear_net()
    carry, xs, d_ys = normal(4, B, H), normal(5, steps, B, I), normal(6, steps, B, H)
    d_last = normal(7, B, H)
    (_, ys), (d_params, d_carry, d_xs) = pull(
        cell, 4, params, carry, xs, (d_last, d_ys)
    )
    whole = d_ys + 0.0
    whole[-1] += d_last
    power = functools.partial(np.linalg.matrix_power, params["w_h"].T)
    deltas = np.stack(
        [sum(whole[s] @ power(s - t) for s in range(t, steps)) for t in range(steps)]
    )
    before = np.concatenate([carry[None], ys[:-1]])
    assert error(d_params["w_h"], np.einsum("tbi,tbj->ij", before, deltas)) <= EXACT
    assert error(d_params["w_x"], np.einsum("tbi,tbj->ij", xs, deltas)) <= EXACT
    assert error(d_params["b"], deltas.sum((0, 1))) <= EXACT
    assert error(d_carry, deltas[0] @ params["w_h"].T) <= EXACT
    assert error(d_xs, deltas @ params["w_x"].T) <= EXACT


@pytest.mark.parametrize("steps", [1, 6, 200])
def test_diagonal_linear_recurrence(steps):
    """delta_t = q_t + delta_{t+1} λ, dλ = Σ delta_t h_{t-1}, d h_0 = delta_1 λ."""
    cell = cells.indrnn(I, H, activation=linear)
    decay = np.linspace(-0.99, 0.999, H)
    params = dict(w_x=normal(2, I, H), w_h=decay, b=normal(3, H))
    carry, xs, d_ys = normal(4, B, H), normal(5, steps, B, I), normal(6, steps, B, H)
    d_last = normal(7, B, H)
    (last, ys), (d_params, d_carry, d_xs) = pull(
        cell, 5, params, carry, xs, (d_last, d_ys)
    )
    powers = decay ** np.arange(steps + 1)[:, None, None]  # λ^k at k, [T + 1, 1, H]
    drive = xs @ params["w_x"] + params["b"]
    closed = powers[steps] * carry + (powers[:steps][::-1] * drive).sum(0)
    assert error(last, closed) <= EXACT
    whole = d_ys + 0.0
    whole[-1] += d_last
    deltas = np.stack([(powers[: steps - t] * whole[t:]).sum(0) for t in range(steps)])
    before = np.concatenate([carry[None], ys[:-1]])
    assert error(d_params["w_h"], (deltas * before).sum((0, 1))) <= EXACT
    assert error(d_params["w_x"], np.einsum("tbi,tbj->ij", xs, deltas)) <= EXACT
    assert error(d_params["b"], deltas.sum((0, 1))) <= EXACT
    assert error(d_carry, deltas[0] * decay) <= EXACT
    assert error(d_xs, deltas @ params["w_x"].T) <= EXACT


@pytest.mark.parametrize("steps", [1, 2, 30])
def test_one_tanh_unit(steps):
    """d h_T / d h_0 = Π w (1 - h_t²), d h_T / d w = Σ h_{t-1} (1 - h_t²) Π_{s>t} …"""
    cell, w, v, b = cells.elman(1, 1), 1.3, 0.7, 0.1
    params = dict(w_x=np.full((1, 1), v), w_h=np.full((1, 1), w), b=np.full(1, b))
    xs = 0.3 * normal(5, steps, 1)
    hs = [0.2]
    for x in xs[:, 0]:
        hs.append(np.tanh(v * x + w * hs[-1] + b))
    hs = np.array(hs)
    slopes = 1 - hs[1:] ** 2
    # d h_T / d z_t
    deltas = np.array([slopes[t] * np.prod(w * slopes[t + 1 :]) for t in range(steps)])
    (last, ys), (d_params, d_carry, d_xs) = pull(
        cell, 4, params, np.full(1, 0.2), xs, (np.ones(1), np.zeros((steps, 1)))
    )
    assert error(ys[:, 0], hs[1:]) <= EXACT
    assert error(d_carry[0], np.prod(w * slopes)) <= EXACT
    assert error(d_params["w_h"], hs[:-1] @ deltas) <= EXACT
    assert error(d_params["w_x"], xs[:, 0] @ deltas) <= EXACT
    assert error(d_params["b"], deltas.sum()) <= EXACT
    assert error(d_xs[:, 0], v * deltas) <= EXACT
    assert np.abs(last) > 1e-3


# Gates that are open or shut: what is kept is kept exactly

LONG = 1000


def test_lstm_constant_error_carousel():
    """With f = 1, i = 0 the cell state and its gradient do not change in 1,000 steps."""
    cell = cells.lstm(I, H)
    shut, opened = np.full(H, -200.0), np.full(H, 200.0)
    params = dict(
        w_x=normal(1, I, 4 * H),
        w_h=normal(2, H, 4 * H),
        b=np.concatenate([shut, opened, normal(3, H), opened]),
    )
    carry = cells.LSTMCarry(normal(4, B, H), normal(5, B, H))
    xs, d_c = normal(6, LONG, B, I), normal(7, B, H)
    d_out = cells.LSTMCarry(np.zeros((B, H)), d_c), np.zeros((LONG, B, H))
    (last, ys), (d_params, d_carry, d_xs) = pull(cell, None, params, carry, xs, d_out)
    np.testing.assert_array_equal(last.c, carry.c)
    np.testing.assert_array_equal(d_carry.c, d_c)
    np.testing.assert_array_equal(d_carry.h, 0.0)
    assert error(ys, np.broadcast_to(np.tanh(carry.c), ys.shape)) <= EXACT
    assert all(not np.any(a) for a in jax.tree.leaves((d_params, d_xs)))
    half_open = {**params, "b": 0 * params["b"]}
    _, (_, d_carry, _) = pull(cell, None, half_open, carry, xs, d_out)
    assert np.abs(d_carry.c).max() < 1e-6  # it is the gates that keep it


@pytest.mark.parametrize("reset_after", [True, False])
def test_gru_that_keeps_its_state(reset_after):
    """With z = 1 it is handed on, and cotangents of all steps add up."""
    cell = cells.gru(I, H, reset_after=reset_after)
    params = dict(
        w_x=normal(1, I, 3 * H),
        w_h=normal(2, H, 3 * H),
        b=np.concatenate([normal(3, H), np.full(H, 200.0), normal(4, H)]),
    )
    if reset_after:
        params["b_n"] = normal(8, H)
    carry, xs = normal(5, B, H), normal(6, LONG, B, I)
    d_last, d_ys = normal(7, B, H), normal(9, LONG, B, H)
    (last, ys), (d_params, d_carry, d_xs) = pull(
        cell, None, params, carry, xs, (d_last, d_ys)
    )
    assert error(last, carry) <= EXACT
    assert error(ys, np.broadcast_to(carry, ys.shape)) <= EXACT
    assert error(d_carry, d_last + d_ys.sum(0)) <= EXACT
    assert all(not np.any(a) for a in jax.tree.leaves((d_params, d_xs)))


def test_irnn_keeps_positive_units_and_their_gradient():
    """Identity weights, relu, no input; a negative unit is dead and hands nothing back."""
    cell = cells.elman(
        I, H, activation=jax.nn.relu, recurrent_kernel_init=cells.identity
    )
    params = jax.tree.map(
        lambda a: np.asarray(a, np.float64), cell.init(jax.random.key(0))
    )
    carry = normal(1, B, H)
    carry[0] = np.abs(carry[0])
    carry[1, 0] = -1.0
    alive = carry > 0
    d_last, d_ys = normal(2, B, H), normal(3, LONG, B, H)
    xs = np.zeros((LONG, B, I))
    (last, ys), (d_params, d_carry, _) = pull(
        cell, None, params, carry, xs, (d_last, d_ys)
    )
    np.testing.assert_array_equal(last, np.where(alive, carry, 0))
    np.testing.assert_array_equal(ys, np.broadcast_to(last, ys.shape))
    assert error(d_carry, np.where(alive, d_last + d_ys.sum(0), 0)) <= EXACT
    later = d_last + np.cumsum(d_ys[::-1], 0)[::-1]  # all that comes from step t on
    deltas = np.where(alive, later, 0)
    before = np.concatenate([carry[None], ys[:-1]])
    assert error(d_params["w_h"], np.einsum("tbi,tbj->ij", before, deltas)) <= EXACT


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.relu])
def test_ctrnn_with_steps_of_its_time_constant_is_elman(activation):
    leaky = cells.ctrnn(I, H, tau=20.0, dt=20.0, activation=activation)
    plain = cells.elman(I, H, activation=activation)
    _, params = linear_net()
    at = Arguments(params, normal(4, B, H), normal(5, 7, B, I), Side(), 7)
    of = functools.partial(gradients, at=at, chunk=3, compiler_options=QUICK)
    found, want = of(leaky), of(plain)
    assert worst(found, want)[0] <= EXACT
    assert np.abs(want["grad[0]['w_h']"]).max() > 1e-3
    slower = cells.ctrnn(I, H, tau=40.0, dt=20.0, activation=activation)
    assert worst(of(slower), want)[0] > 1e-3
