"""Training of complex parameters: downhill, kept and read again exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import (
    Batch,
    Side,
    Stream,
    Task,
    estimators,
    layers,
    objectives,
    sweep,
    train,
)
from bptt_jax.sweep import _store
from bptt_jax.train import Checkpoints
from support.complex_cells import BY_HAND
from train.test_step import equal

T, B = 5, 2
MODEL = layers.recurrent(BY_HAND)
ESTIMATOR = estimators.exact(MODEL, objectives.squared_error)


def batch():
    rng = np.random.default_rng(0)
    xs, goals = rng.normal(size=(T, B, 3)), rng.normal(size=(T, B, 4))
    return Batch(jnp.asarray(xs, "f"), Side(targets=jnp.asarray(goals, "f")))


STREAM = Stream(lambda first, n: np.zeros(n), lambda item, key: batch(), None)
TASK = Task(3, 4, objectives.squared_error, STREAM, STREAM)


@jax.jit
def gradient(params):
    return ESTIMATOR.grad(params, (), batch(), jax.random.key(0))


def loss_of(params):
    return gradient(params).loss


def test_plain_descent_goes_up_and_the_library_goes_down():
    """A step against JAX's own gradient goes up along the imaginary axis."""
    params = dict(MODEL.init(jax.random.key(0)))
    grads = gradient(params).grads
    imaginary = jax.tree.map(lambda g: 1j * g.imag, grads)
    rate, start = 1e-2, loss_of(params)

    def after(step):
        return loss_of(jax.tree.map(lambda p, g: p - rate * g, params, step))

    assert after(imaginary) > start > after(jax.tree.map(jnp.conj, imaginary))
    optimizer = optax.sgd(rate)
    state = train.init(MODEL, ESTIMATOR, optimizer, STREAM, jax.random.key(3))
    state = state._replace(params=jax.tree.map(jnp.copy, params))
    one, metrics = train.step(ESTIMATOR, optimizer, STREAM.batch, state, 0)
    for name, p in params.items():
        want = p - rate * grads[name].conj()
        np.testing.assert_allclose(one.params[name], want, rtol=1e-5)
    assert loss_of(one.params) < start
    slope = sum(float((abs(g) ** 2).sum()) for g in grads.values())
    np.testing.assert_allclose(start - loss_of(one.params), rate * slope, rtol=0.2)
    np.testing.assert_allclose(metrics["grad_norm"], slope**0.5, rtol=1e-5)


@pytest.mark.parametrize(
    "optimizer", [optax.sgd(0.1), optax.adam(0.02), optax.rmsprop(0.01)]
)
def test_optimizers_go_down(optimizer):
    clipped = optax.chain(train.clip_by_global_norm(1.0), optimizer)
    state = train.init(MODEL, ESTIMATOR, clipped, STREAM, jax.random.key(1))
    advance = train.many_steps(ESTIMATOR, clipped, STREAM.batch)
    state, metrics = advance(state, np.zeros(40))
    assert metrics["loss"][-1] < 0.7 * metrics["loss"][0]
    assert all(a.dtype == jnp.complex64 for a in jax.tree.leaves(state.params))


def test_a_run_is_kept_and_goes_on(tmp_path):
    optimizer = optax.adam(0.02)
    options = train.RunOptions(4, per_dispatch=4, evaluate_batches=1, final_batches=1)
    train.run(TASK, MODEL, ESTIMATOR, optimizer, options, tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoint")
    like = train.init(MODEL, ESTIMATOR, optimizer, STREAM, jax.random.key(9))
    kept = checkpoints.restore(like)
    checkpoints.close()
    run = train.run(
        TASK, MODEL, ESTIMATOR, optimizer, options._replace(updates=8), tmp_path / "run"
    )
    alone = train.run(
        TASK,
        MODEL,
        ESTIMATOR,
        optimizer,
        options._replace(updates=8),
        tmp_path / "alone",
    )
    assert equal(run.state.params, alone.state.params)
    assert int(kept.position) == 4
    leaves = jax.tree.leaves(kept.params)
    assert all(a.dtype == jnp.complex64 and np.abs(a.imag).min() > 0 for a in leaves)


def test_a_sweep_takes_the_same_steps():
    rate = {"lr": jnp.float32(0.05)}
    training = sweep.training(TASK, MODEL, ESTIMATOR, lambda lr: optax.sgd(lr))
    state = training.init(rate, jax.random.key(0))
    after, metrics = training.step(rate, state, 0)
    one = train.init(MODEL, ESTIMATOR, optax.sgd(0.05), STREAM, jax.random.key(0))
    want, _ = train.step(ESTIMATOR, optax.sgd(0.05), STREAM.batch, one, 0)
    for name, a in after.params.items():
        np.testing.assert_allclose(a, want.params[name], rtol=1e-6)
    assert loss_of(after.params) < metrics["loss"]


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_arrays_of_a_sweep_are_kept_exactly(dtype, tmp_path):
    a = np.array([1 + 2j, complex(-0.0, np.nan), complex(np.inf, -0.0)], dtype)
    tree = dict(w=a, b=np.ones(2, np.float32))
    _store.save(tmp_path / "now.safetensors", tree, rung=3)
    found, about = _store.load(tmp_path / "now.safetensors", tree)
    assert found["w"].dtype == dtype
    assert found["w"].tobytes() == a.tobytes()
    assert about == dict(rung="3")
    assert equal(found["b"], tree["b"])
