"""`Batch.context`: a model that sees it is the model that has it among its inputs.

That it is spread over devices as the batch is: `test_data_parallel.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import (
    Batch,
    InContext,
    Side,
    cells,
    diagnose,
    estimators,
    layers,
    models,
    objectives,
    unrolls,
    wholes,
)
from support.gradients import quick_jit

T, B, I, H = 8, 3, 2, 4


def init(key):
    return jax.random.normal(key, (I, H), jnp.float64)


def init_carry(params, batch_shape):
    del params
    return jnp.zeros((*batch_shape, H), jnp.float64)


def seen(params, h, x):
    w, (gain, shift) = params
    h = jnp.tanh(x @ w + gain * h + shift)
    return h, h


def read(params, h, x):
    x, gain, shift = jnp.split(x, [I, I + H], -1)
    return seen((params, (gain, shift)), h, x)


def whole(cell):
    return layers.stack(a=cell, out=layers.dense(H, 2, param_dtype=jnp.float64))


BESIDE_CELL = cells.from_step(seen, lambda key: InContext(init(key)), init_carry)
BESIDE = whole(BESIDE_CELL)
AMONG = whole(cells.from_step(read, init, init_carry))


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def batches(seed=0, mask=None):
    """The same, with a context and with more inputs."""
    xs, targets = draw(seed, T, B, I), draw(seed + 1, T, B, 2)
    context = draw(9, B, H), draw(10, B, H)
    side = Side(targets=targets, mask=mask)
    more = [jnp.broadcast_to(a, (T, *a.shape)) for a in context]
    return Batch(xs, side, context), Batch(jnp.concatenate([xs, *more], -1), side)


def same(found, want, name=""):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13, err_msg=name)


SHORT = jnp.arange(T)[:, None] < jnp.array([3, 4, 2])
ESTIMATORS = {
    "exact": (estimators.exact, None),
    "truncated": (
        functools.partial(
            estimators.exact, unroll=functools.partial(unrolls.truncated, window=2)
        ),
        None,
    ),
    "stream": (estimators.stream, None),
    "windows": (functools.partial(estimators.stream, window=4, stride=2), None),
    "bucketed": (
        lambda *at: estimators.bucketed(estimators.exact(*at), (4, T)),
        SHORT,
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators(name):
    make, mask = ESTIMATORS[name]
    results = []
    for model, which in ((BESIDE, 0), (AMONG, 1)):
        estimator = make(model, objectives.squared_error)
        params = model.init(jax.random.key(0))
        grad = quick_jit(estimator.grad)
        state = estimator.init(params, batches(0, mask)[which])
        for i in range(2):
            batch = batches(2 * i, mask)[which]
            found = grad(params, state, batch, jax.random.key(1))
            state = found.state
        results.append((found.loss, found.grads))
    same(*results, name)
    assert np.abs(results[0][1]["a"].params).max() > 1e-3


def test_sections():
    """A part of sections sees it."""
    out = layers.dense(H, 2, param_dtype=jnp.float64)
    model, batch = models.sections(BESIDE_CELL, wholes.mean(), out), batches()[0]
    params = model.init(jax.random.key(0))
    grad = quick_jit(estimators.exact(model, objectives.squared_error).grad)
    found = grad(params, (), batch, jax.random.key(1))

    def loss(params, h, context):
        for x in batch.inputs:
            h.append(seen((params[0].params, context), h[-1], x)[0])
        ys = sum(h[1:]) / T @ params[2]["kernel"] + params[2]["bias"]
        return ((ys - batch.side.targets[-1]) ** 2).sum(-1).mean()

    def plain(params, context):
        return loss(params, [jnp.zeros((B, H), jnp.float64)], context)

    same((found.loss, found.grads), jax.value_and_grad(plain)(params, batch.context))
    assert abs(plain(params, tuple(2 * a for a in batch.context)) - found.loss) > 1e-3


def test_diagnoses():
    found = []
    for model, batch in zip((BESIDE, AMONG), batches(), strict=True):
        params = model.init(jax.random.key(0))
        at = model, objectives.squared_error, params, batch
        (activity,) = diagnose.activity(model, params, batch)
        flow = diagnose.gradient_flow(*at)
        lags = diagnose.by_lag(*at, lags=3).norms
        found.append((lags, flow.loss, flow.d_states, activity.means))
    same(*found)


def test_a_model_that_sees_none():
    estimator = estimators.exact(AMONG, objectives.squared_error)
    batch = batches()[1]._replace(context=jnp.ones((B, 1)))
    with pytest.raises(ValueError, match="context: expected none, for no part"):
        estimator.grad(AMONG.init(jax.random.key(0)), (), batch, jax.random.key(1))


def test_a_batch_without():
    estimator = estimators.exact(BESIDE, objectives.squared_error)
    batch = batches()[0]._replace(context=())
    with pytest.raises(ValueError, match=r"context: .* params\['a'\] see, got none"):
        estimator.grad(BESIDE.init(jax.random.key(0)), (), batch, jax.random.key(1))


def test_symbols_are_drawn_in_a_context():
    """The most probable ones, as a loop of steps finds them."""
    model = layers.stack(
        symbols=layers.embedding(5, I, param_dtype=jnp.float64),
        memory=BESIDE_CELL,
        out=layers.dense(H, 5, param_dtype=jnp.float64),
    )
    params = model.init(jax.random.key(0))
    context = draw(9, 2, H), draw(10, 2, H)
    whole = layers.with_context(params, context)
    tokens = jnp.array([[1, 4], [2, 0]], jnp.int32)
    found = models.generate(model, whole, tokens, 3, 0.0, jax.random.key(1))
    carry, want = model.init_carry(params, (2,)), []
    for t in range(4):
        token = tokens[t] if t < 2 else want[-1]
        carry, logits = unrolls.step(model, params, carry, token, context=context)
        if t:
            want.append(logits.argmax(-1).astype(jnp.int32))
    np.testing.assert_array_equal(found, want)
