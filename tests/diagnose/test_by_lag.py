"""Gradients by lag, what a window leaves out, and truncation that chooses its window."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import (
    Batch,
    Side,
    Weighted,
    cells,
    diagnose,
    estimators,
    layers,
    objectives,
    unrolls,
)
from support import watching
from support.gradients import quick_jit
from support.reference import reference_jit

LOSS = objectives.squared_error
KEY = jax.random.key(0)
RHO = 0.8


def faded(key, shape, dtype):
    return RHO * jax.nn.initializers.orthogonal()(key, shape, dtype)


LINEAR = layers.recurrent(
    cells.elman(
        3,
        3,
        activation=lambda a: a,
        recurrent_kernel_init=faded,
        param_dtype=jnp.float64,
    )
)


def linear_batch(steps):
    rng = np.random.default_rng(1)
    side = Side(targets=rng.normal(size=(steps, 2, 3)))
    return Batch(rng.normal(size=(steps, 2, 3)), side)


@pytest.mark.parametrize("ragged", [False, True])
def test_norms_are_those_of_a_loop(ragged):
    """Windows of 3 of 7 steps: the losses of steps 4 and 7, each three steps back."""
    model, batch = watching.model(), watching.batch(ragged)
    params = watching.params_of(model)
    found = diagnose.by_lag(model, LOSS, params, batch, lags=3)

    zeros, vectors = watching.zeros_after("lstm", params, batch), []

    @reference_jit
    def slopes(zeros):
        losses = lambda z: watching.losses_of_loop("lstm", params, batch, z)
        _, back = jax.vjp(lambda z: jnp.stack([losses(z)[t] for t in (3, 6)]), zeros)
        return [back(row)[0] for row in jnp.eye(2)]

    for t, d in zip((3, 6), slopes(zeros), strict=True):
        flat = [
            np.concatenate([np.asarray(a) for a in jax.tree.leaves(d[t - k])], -1)
            for k in range(3)
        ]
        real = np.ones(2, bool) if not ragged else np.asarray(batch.side.mask[t])
        vectors.append(np.stack(flat)[:, real])
    vectors = np.concatenate(vectors, 1)  # [K, losses, units]
    assert int(found.losses) == vectors.shape[1]
    np.testing.assert_allclose(
        found.norms, np.linalg.norm(vectors, axis=-1).mean(1), rtol=1e-9
    )
    sums = np.cumsum(vectors.mean(1), 0)
    np.testing.assert_allclose(found.sums, np.linalg.norm(sums, axis=-1), rtol=1e-9)


def test_linear_network_decays_at_its_radius():
    batch = linear_batch(24)
    params = watching.params_of(LINEAR)
    found = diagnose.by_lag(LINEAR, LOSS, params, batch, lags=24)
    phi = np.asarray(found.norms)
    np.testing.assert_allclose(phi[1:] / phi[:-1], RHO, rtol=1e-10)
    rates = diagnose.fitted_rate, diagnose.largest_rate, diagnose.quantile_rate

    @quick_jit
    def figures(norms):
        left = diagnose.remainder(norms, jnp.float64(RHO), 2)
        return [rate(norms, 2) for rate in rates], left, diagnose.horizon(norms)

    each, left, horizon = figures(found.norms)
    np.testing.assert_allclose(each, RHO, rtol=1e-9)
    np.testing.assert_allclose(left[5], phi[0] * RHO**5 / (1 - RHO), rtol=1e-10)
    np.testing.assert_allclose(left[0], phi[0] / (1 - RHO), rtol=1e-10)
    share = 1 - RHO ** np.arange(1, 25)
    want = 1 + np.argmax(share / share[-1] >= 0.95)
    assert int(horizon) == want


def test_what_is_left_out_is_within_the_bound():
    """The bias gradient of a linear network, with I_t = 1, truncated at K lags."""
    batch, params = linear_batch(40), watching.params_of(LINEAR)
    targets = Weighted(batch.side.targets, (np.arange(40) == 39).astype(float))
    batch = batch._replace(side=Side(targets=targets))
    found = diagnose.by_lag(LINEAR, LOSS, params, batch, lags=40)
    bias = diagnose.relative_bias(found.norms, found.sums, jnp.float64(RHO))
    windows = 5, 10, 20

    @quick_jit
    def gradients(params):
        cuts = [functools.partial(unrolls.truncated, window=K) for K in windows]
        each = [estimators.exact(LINEAR, LOSS, unroll=u) for u in (unrolls.bptt, *cuts)]
        return [e.grad(params, (), batch, KEY)[1]["b"] for e in each]

    total, *short = map(np.asarray, gradients(params))
    for K, got in zip(windows, short, strict=True):
        off = np.linalg.norm(got - total) / np.linalg.norm(total)
        assert 1e-6 < off <= float(bias[K - 1]), K
    K = int(diagnose.window(found.norms, found.sums, tolerance=0.3))
    assert float(bias[K - 1]) < 0.3 <= float(bias[K - 2])
    none = diagnose.window(found.norms, found.sums, tolerance=1e-9)
    assert int(none) == 40


def test_without_decay_nothing_is_bounded():
    for rate in (1.0, 1.5):
        assert np.isinf(diagnose.remainder(jnp.ones(5), jnp.float64(rate))).all()
    assert int(diagnose.window(jnp.ones(5), jnp.ones(5), tolerance=0.5)) == 5


def test_underflow_is_no_decay():
    """Norms that are rounding alone do not flatten the slope."""
    phi = jnp.where(jnp.arange(60) < 30, 0.1 ** jnp.arange(60.0), 1e-40)
    np.testing.assert_allclose(diagnose.fitted_rate(phi), 0.1, rtol=0.02)


def adaptive(tolerance, **options):
    return diagnose.adaptive_truncation(
        LINEAR, LOSS, windows=(2, 4, 8), tolerance=tolerance, every=2, **options
    )


@pytest.mark.parametrize(("tolerance", "window"), [(1.0, 2), (1e-6, 8)])
def test_adaptive_is_truncation_by_the_chosen_window(tolerance, window):
    batch, params = linear_batch(16), watching.params_of(LINEAR)
    if window == 2:  # a past that fades at once
        params = params | dict(w_h=0.1 * params["w_h"])
    estimator = adaptive(tolerance, make=estimators.exact)
    state = estimator.init(params, batch)
    grad = jax.jit(estimator.grad)
    _, got, state, _, metrics = grad(params, state, batch, KEY)
    assert int(metrics["window"]) == window
    cut = functools.partial(unrolls.truncated, window=2 * window, stride=window)
    if window == 8:
        cut = unrolls.bptt
    exact = quick_jit(estimators.exact(LINEAR, LOSS, unroll=cut).grad)
    want = exact(params, (), batch, KEY)[1]
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert [int(state.age), int(grad(params, state, batch, KEY)[2].age)] == [1, 2]


def test_adaptive_chooses_anew_and_hands_the_carry_on():
    """Other parameters, whose past fades at once, are met with a shorter window."""
    batch, slow = linear_batch(16), watching.params_of(LINEAR)
    quick = slow | dict(w_h=0.1 * slow["w_h"])
    estimator = adaptive(1.0)
    grad = jax.jit(estimator.grad)
    state, taken = estimator.init(slow, batch), []
    for params in (slow, quick, quick):
        _, _, state, _, metrics = grad(params, state, batch, KEY)
        taken.append(int(metrics["window"]))
    assert taken[0] == taken[1] > taken[2]
    assert np.abs(state.state).max() > 0


def test_a_batch_of_padding_chooses_nothing():
    """It comes when a choice is due, and finds the window as it was."""
    batch, params = linear_batch(16), watching.params_of(LINEAR)
    params = params | dict(w_h=0.1 * params["w_h"])
    estimator = adaptive(1.0)
    grad, taken = jax.jit(estimator.grad), []
    state = estimator.init(params, batch)
    for real in (True, True, False):
        mask = np.full((16, 2), real)
        padded = batch._replace(side=batch.side._replace(mask=mask))
        _, _, state, _, metrics = grad(params, state, padded, KEY)
        taken.append(int(metrics["window"]))
    assert taken == [2, 2, 2]


def kept(factory):
    """How many objects a factory keeps."""
    return len(inspect.getclosurevars(factory).nonlocals["kept"])


@pytest.mark.parametrize("make", [estimators.exact, estimators.stream])
def test_adaptive_leaves_nothing_in_factories_however_often_it_is_traced(make):
    """Its windows are equal arguments each time; nor does what looks by lag leave any."""
    factories = make, estimators.total_loss, layers.with_loss, layers.recurrent
    estimator, params = adaptive(0.5, make=make), watching.params_of(LINEAR)
    counts = []
    for steps in (16, 20, 24, 16):
        batch = linear_batch(steps)
        state = estimator.init(params, batch)
        jax.eval_shape(lambda *at: estimator.grad(*at), params, state, batch, KEY)
        counts.append([kept(factory) for factory in factories])
    assert counts[1:] == counts[:1] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(windows=(8, 4)), "windows: expected ascending"),
        (dict(windows=()), "windows: expected ascending"),
        (dict(tolerance=0.0), "tolerance: expected a positive"),
        (dict(every=0), "every: expected at least 1"),
    ],
)
def test_adaptive_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        diagnose.adaptive_truncation(LINEAR, LOSS, **options)


def test_more_lags_than_steps_are_refused():
    params = watching.params_of(LINEAR)
    with pytest.raises(ValueError, match="lags: expected 1 to 4"):
        diagnose.by_lag(LINEAR, LOSS, params, linear_batch(4), lags=5)
