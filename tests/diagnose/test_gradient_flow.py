"""`gradient_flow` and `contributions` against loops in Python and NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import (
    Batch,
    Side,
    cells,
    diagnose,
    estimators,
    layers,
    objectives,
    unrolls,
)
from support import watching
from support.changed import with_parts
from support.complex_cells import BY_HAND
from support.gradients import initial, quick_jit
from support.reference import reference_jit

LOSS = objectives.squared_error
KEY = jax.random.key(0)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", ["lstm", "elman", "from_step"])
def test_is_the_gradient_of_a_zero_added_to_each_state(name, ragged):
    model, batch = watching.model(name), watching.batch(ragged, steps=4)
    params = watching.params_of(model)
    flow = diagnose.gradient_flow(model, LOSS, params, batch, chunk=3)

    zeros = watching.zeros_after(name, params, batch)
    count = watching.real_steps(batch)
    loss = lambda p, z: sum(watching.losses_of_loop(name, p, batch, z)) / count
    plain = reference_jit(jax.value_and_grad(loss, (0, 1)))
    value, (d_params, d_zeros) = plain(params, zeros)
    np.testing.assert_allclose(flow.loss, value, rtol=1e-12)
    for got, want in zip(*map(jax.tree.leaves, (flow.grads, d_params)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)
    by_step = jax.tree.map(lambda *a: np.stack(a), *d_zeros)
    for got, want in zip(*map(jax.tree.leaves, (flow.d_states, by_step)), strict=True):
        assert np.abs(want[0]).max() > 1e-6, "the gradient vanished"
        np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_does_not_depend_on_the_chunk(steps):
    model, batch = watching.model("elman"), watching.batch(steps=steps)
    params = watching.params_of(model)
    one, default = (
        diagnose.contributions(model, LOSS, params, batch, chunk=k) for k in (1, None)
    )
    for a, b in zip(*map(jax.tree.leaves, (one, default)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_gradients_are_those_of_the_estimator():
    model, batch = watching.model(), watching.batch(ragged=True, steps=4)
    params = watching.params_of(model)
    want = quick_jit(estimators.exact(model, LOSS).grad)(params, (), batch, KEY)[1]
    for f in (diagnose.gradient_flow, diagnose.contributions):
        got = f(model, LOSS, params, batch, chunk=3).grads
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
    want_b = np.linalg.norm(delta.sum(1), axis=-1)
    np.testing.assert_allclose(found.norms[0]["b"], want_b, atol=1e-13)
    apart = np.sqrt(
        (np.einsum("tbi,tbj->tbij", before, delta) ** 2).sum((1, 2, 3))
    )  # what it would be if examples did not add up first
    assert not np.allclose(want[1:], apart[1:], rtol=1e-3)

    one = jax.tree.map(lambda a: a[:, :1], batch)
    found = diagnose.contributions(layer, LOSS, params, one)
    delta = np.asarray(found.d_states[0] * (1 - hs[:, :1] ** 2))
    product = np.linalg.norm(one.inputs, axis=-1) * np.linalg.norm(delta, axis=-1)
    np.testing.assert_allclose(found.norms[0]["w_x"], product[:, 0], atol=1e-13)


RESET = {
    "lstm": lambda: cells.lstm(watching.I, watching.O, param_dtype=jnp.float64),
    "learned": lambda: cells.learned_carry(
        cells.gru(watching.I, watching.O, param_dtype=jnp.float64)
    ),
}


@pytest.mark.parametrize("name", RESET)
def test_resets_leave_the_norms_to_factors(name, monkeypatch):
    """Those of an initial state that is learnt, too; with a mask, by steps otherwise."""
    cell, batch = RESET[name](), watching.batch(ragged=True, examples=3)
    params = jax.tree.map(lambda a: a + 0.1, watching.params_of(cell))
    unknown = with_parts(cell, contract=functools.partial(cells.contract, cell))
    want = diagnose.contributions(unknown, LOSS, params, batch, chunk=3)
    path = "bptt_jax.diagnose._gradient_flow._step_after_step"
    monkeypatch.setattr(path, lambda seen: pytest.fail("one step after another"))
    found = diagnose.contributions(cell, LOSS, params, batch, chunk=3)
    for a, b in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    if name == "learned":
        assert (found.norms[0].carry > 0).sum() == batch.side.resets.any(1).sum()


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


def test_flow_norms_and_lags_of_complex_states():
    """Moduli throughout: against the same in plain loops over what JAX gives."""
    model, T, B = layers.recurrent(BY_HAND), 5, 2
    params = jax.tree.map(lambda a: a.astype(complex), initial(BY_HAND, (0, 0)))
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(T, B, 3))
    batch = Batch(xs, Side(targets=rng.normal(size=(T, B, 4))))
    carry = np.zeros((B, 4), complex)

    def losses(params, added):
        state, found = carry, []
        for x, goal, z in zip(xs, batch.side.targets, added, strict=True):
            state = BY_HAND.step(params, state, x)[0] + z
            found.append((((params["c"] * state).real - goal) ** 2).sum(-1))
        return jnp.stack(found)

    def states_after(t):
        return functools.reduce(
            lambda s, x: BY_HAND.step(params, s, x)[0], xs[: t + 1], carry
        )

    def losses_from(state, t):
        """Of the steps from t on; the output is no part of the state before them."""
        _, ys = unrolls.scan(BY_HAND, params, state, xs[t:])
        return ((ys - batch.side.targets[t:]) ** 2).sum(-1)

    @reference_jit
    def plain(params, zeros):
        """Gradients of the mean, of later losses by a state, of the last by all; states."""
        d_params = jax.grad(lambda p: losses(p, zeros).mean())(params)
        rest = jax.grad(lambda s: losses_from(s, 2).sum())(states_after(1)) / (T * B)
        d_last = jax.grad(lambda z: losses(params, z)[-1].sum())(zeros)
        return d_params, rest, d_last, [states_after(t) for t in range(T - 1)]

    zeros = np.zeros((T, B, 4), complex)
    d_params, rest, d_last, after = jax.tree.map(np.asarray, plain(params, zeros))
    found = diagnose.contributions(model, LOSS, params, batch, chunk=2)
    for name, want in d_params.items():
        np.testing.assert_allclose(found.grads[name], want, atol=1e-13)
        assert jnp.isrealobj(found.norms[0][name])
        assert np.sum(found.norms[0][name]) >= np.abs(found.grads[name]).max()
    np.testing.assert_allclose(found.d_states[0][1], rest, atol=1e-13)
    norms = diagnose.state_norms(found.d_states[0])
    assert jnp.isrealobj(norms)
    np.testing.assert_allclose(
        norms, np.linalg.norm(found.d_states[0], axis=-1), rtol=1e-12
    )
    later = diagnose.by_lag(model, LOSS, params, batch, lags=T)
    slopes = np.linalg.norm(d_last, axis=-1).mean(1)[::-1]
    np.testing.assert_allclose(later.norms[1:], slopes[1:], rtol=1e-10)
    assert jnp.isrealobj(later.norms)
    assert jnp.isrealobj(later.sums)
    omega = diagnose.omega(model, LOSS, params, batch)
    assert np.isfinite(omega.value)
    assert jnp.isrealobj(omega.value)
    (activity,) = diagnose.activity(model, params, batch)
    states = np.stack([carry, *after])
    np.testing.assert_allclose(activity.state_norms, np.linalg.norm(states, axis=-1))
    np.testing.assert_allclose(activity.means, states.mean((0, 1)))
    np.testing.assert_allclose(activity.deviations, states.std((0, 1)))
    assert not activity.dead.any()


# Hooks


LINEAR = cells.elman(3, 4, activation=lambda a: a, param_dtype=jnp.float64)


def backward(hook, cell=LINEAR, aux=None, steps=6):
    """The cotangents of the inputs of one long pull from the last state."""
    params = watching.params_of(cell)
    carry = cell.init_carry(params, (2,))
    xs = np.random.default_rng(3).normal(size=(steps, 2, 3))
    layer = layers.recurrent(cell, on_d_carry=hook)

    def last(params, xs):
        carry_, _ = unrolls.bptt(layer, params, carry, xs, Side(aux=aux))
        return sum(jnp.vdot(a, a) for a in jax.tree.leaves(carry_))

    return quick_jit(jax.grad(last, (0, 1)))(params, xs), (params, carry, xs)


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


def clipped(d, max_norm):
    """Of all leaves together, in Python's numbers."""
    units = [complex(u) for a in jax.tree.leaves(d) for u in np.asarray(a).ravel()]
    norm = math.hypot(*(part for u in units for part in (u.real, u.imag)))
    gain = min(1.0, max_norm / norm)
    return jax.tree.map(lambda a: np.asarray(a, complex) * gain, d)


RANGES = {  # 100 units of that size: their squares leave the range of the dtype
    "float16": (300.0, 1e-4),
    "bfloat16": (1e25, 1e-25),
    "float32": (1e25, 1e-25),
    "float64": (1e200, 1e-200),
    "complex64": (1e25 + 2e25j, 1e-25j),
    "complex128": (1e200 - 1e200j, 1e-200j),
}


@pytest.mark.parametrize("dtype", RANGES)
def test_clip_d_carry_in_every_dtype(dtype):
    """Where squares overflow or vanish; a complex gradient keeps its direction."""
    cases = [
        (dict(h=np.full(90, size, dtype), c=np.full(10, -size, dtype)), max_norm)
        for size in RANGES[dtype]
        for max_norm in (abs(size) / 2, abs(size) * 100)
    ]
    hooks = [layers.clip_d_carry(max_norm) for _, max_norm in cases]
    each = jax.jit(lambda ds: [f(d, None) for f, d in zip(hooks, ds, strict=True)])
    for (d, max_norm), got in zip(cases, each([d for d, _ in cases]), strict=True):
        for a, b in zip(*map(jax.tree.leaves, (got, clipped(d, max_norm)))):  # noqa: B905
            assert a.dtype == dtype
            eps = float(jnp.finfo(dtype).eps)
            np.testing.assert_allclose(np.asarray(a, complex), b, rtol=4 * eps)


def test_clip_d_carry_of_states_of_two_dtypes():
    d = dict(h=jnp.full(9, 300.0, jnp.float16), c=jnp.full(16, -300.0, jnp.float32))
    got = layers.clip_d_carry(5.0)(d, None)
    np.testing.assert_allclose(got["h"], 1.0, rtol=1e-3)
    np.testing.assert_allclose(got["c"], -1.0, rtol=1e-6)


@pytest.mark.parametrize("dtype", RANGES)
def test_the_norm_of_zeros_is_zero(dtype):
    norm = jax.jit(lambda a: diagnose.state_norms(0 * a))
    np.testing.assert_array_equal(norm(jnp.ones((2, 3), dtype)), 0)


def test_clip_d_carry_of_a_zero_has_a_derivative():
    hook = layers.clip_d_carry(1.0)
    along = np.arange(3.0)  # it is the identity there

    @quick_jit
    def derivatives(d, along):
        grad = jax.grad(lambda d: (hook(d, None) ** 2).sum())(d)
        return grad, jax.jvp(lambda d: hook(d, None), (d,), (along,))[1]

    grad, tangent = derivatives(np.zeros(3), along)
    np.testing.assert_array_equal(grad, 0)
    np.testing.assert_array_equal(tangent, along)


def test_scale_d_carry_rounds_the_product_and_not_the_factor():
    d = jnp.full(3, 1000.0, jnp.float16)
    got = layers.scale_d_carry(0.9)(d, None)
    assert got.dtype == jnp.float16
    np.testing.assert_array_equal(got, jnp.full(3, 900.0, jnp.float16))
    each = np.arange(1, 1000, dtype=np.float16)
    want = (each.astype(np.float32) * np.float32(0.9)).astype(np.float16)
    np.testing.assert_array_equal(layers.scale_d_carry(0.9)(each, None), want)
    turned = layers.scale_d_carry(0.5)(jnp.full(3, 2 + 4j), None)
    np.testing.assert_array_equal(turned, np.full(3, 1 + 2j))


@pytest.mark.parametrize("dtype", RANGES)
def test_state_norms_in_every_dtype(dtype):
    norms = jax.jit(diagnose.state_norms)
    for size in RANGES[dtype]:
        d = np.full((3, 100), size, dtype), np.full((3, 44), size, dtype)
        found = norms(d)
        assert found.dtype == (jnp.float64 if "64" in dtype[-3:] and dtype != "complex64"
                               or dtype == "complex128" else jnp.float32)  # fmt: skip
        exact = abs(complex(np.asarray(d[0])[0, 0])) * 12
        np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_scale_d_carry_discounts_by_lag():
    (_, got), _ = backward(layers.scale_d_carry(0.5))
    (_, exact), _ = backward(None)
    gains = 0.5 ** np.arange(6, 0, -1.0)[:, None, None]
    np.testing.assert_allclose(got, gains * exact, atol=1e-13)


@pytest.mark.parametrize("blocked", [True, False])
def test_h_detach_blocks_the_way_through_h(blocked):
    cell = watching.cell("lstm")
    aux = np.arange(6) < (5 if blocked else 0)  # the last state's own cotangent stays
    (got, _), (params, carry, xs) = backward(layers.h_detach, cell, aux)

    def last(params):
        state = carry
        for x in xs:
            h = jax.lax.stop_gradient(state.h) if blocked else state.h
            state, _ = cell.step(params, state._replace(h=h), x)
        return sum(jnp.vdot(a, a) for a in jax.tree.leaves(state))

    want = reference_jit(jax.grad(last))(params)
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("hook", [None, layers.scale_d_carry(0.5)])
def test_a_watch_is_given_the_deltas_of_the_cell_itself(hook):
    """dL/dz_t of an Elman cell, one array, whatever else is wrapped around it."""
    cell = watching.cell("elman")
    layer = layers.recurrent(cell, on_d_carry=hook)
    params, xs = cell.init(KEY), jnp.ones((6, 2, watching.I))
    (carry, ys), back = unrolls.pullback(
        layer, params, cell.init_carry(params, (2,)), xs,
        watch=lambda seen: (unrolls.contract(seen), seen.deltas),
    )  # fmt: skip
    pulled = back(jnp.zeros_like(carry), jnp.ones_like(ys))
    (deltas,) = pulled.seen
    assert deltas.shape == ys.shape
    np.testing.assert_allclose(deltas.sum((0, 1)), pulled.d_params["b"], rtol=1e-12)
    last = 1 - np.square(ys[-1])
    np.testing.assert_allclose(deltas[-1], last, rtol=1e-12)


def test_hooks_refuse():
    with pytest.raises(ValueError, match="max_norm: expected a positive"):
        layers.clip_d_carry(0.0)
    with pytest.raises(TypeError, match="carry of an LSTM, got .*Tracer"):
        backward(layers.h_detach, LINEAR, jnp.ones(6, bool))
