"""Inside what research code puts around a gradient: rematerialised modules, gradients
that are accumulated, and loops over updates that act, store and learn."""

import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, models, objectives, unrolls
from bptt_jax.types import Batch, Side
from support.gradients import error, quick_jit

T, B, I, H, O = 6, 8, 3, 4, 2
CELL = cells.elman(I, H, param_dtype=jnp.float64)
MODEL = models.features((CELL,), O, H)
CHUNKED = functools.partial(unrolls.bptt, chunk=4)
TOLERANCE = 1e-10


def draw(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@functools.cache
def parameters():
    with jax.numpy_dtype_promotion("standard"):
        made = MODEL.init(jax.random.key(0))
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), made)


def off(a, b) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(error(x, y) for x, y in pairs)


def batch_of(real=None, seed=1) -> Batch:
    mask = None if real is None else jnp.asarray(real)
    side = Side(targets=draw(T, B, O, seed=seed + 1), mask=mask)
    return Batch(draw(T, B, I, seed=seed), side)


# flax.linen.remat


class Block(nn.Module):
    """A module whose parameters are a cell's, run by an unroll."""

    unroll: object

    @nn.compact
    def __call__(self, xs, resets):
        params = self.param("cell", CELL.init)
        start = CELL.init_carry(params, xs.shape[1:-1])
        return self.unroll(CELL, params, start, xs, Side(resets=resets))[1]


class Net(nn.Module):
    """Two blocks, so that what one keeps is given up while the other runs."""

    unroll: object
    block: type[nn.Module] = Block

    @nn.compact
    def __call__(self, xs, resets):
        hs = self.block(self.unroll)(xs, resets)
        return self.block(self.unroll)(hs[..., :I], resets)


@pytest.mark.slow
def test_in_a_module_under_flax_linen_remat():
    xs, resets = (
        draw(T, B, I),
        jnp.asarray(np.random.default_rng(2).random((T, B)) < 0.3),
    )
    with jax.numpy_dtype_promotion("standard"):
        plain, lean = Net(unrolls.scan), Net(CHUNKED, nn.remat(Block))
        variables = plain.init(jax.random.key(0), xs, resets)["params"]
    both = dict(
        zip(("CheckpointBlock_0", "CheckpointBlock_1"), variables.values(), strict=True)
    )

    def gradient(net, params):
        def loss(params, xs):
            return jnp.sum(jnp.sin(net.apply({"params": params}, xs, resets) * 3))

        return jax.value_and_grad(loss, (0, 1))(params, xs)

    program = jax.make_jaxpr(functools.partial(gradient, lean))(both)
    assert "checkpoint" in str(program) or "remat" in str(program)
    found = quick_jit(functools.partial(gradient, lean))(both)
    want = quick_jit(functools.partial(gradient, plain))(variables)
    assert off(found, want) <= TOLERANCE
    assert min(np.abs(a).max() for a in jax.tree.leaves(want)) > 1e-3


# optax.MultiSteps


# before optax 0.2.7 accumulators have the dtype of the parameters
CHOICES = inspect.signature(optax.MultiSteps).parameters
WANTED = dict(accumulator_dtype=jnp.float64)
ACCUMULATED = {name: value for name, value in WANTED.items() if name in CHOICES}


def after_micro_batches(batch: Batch, k: int):
    """Parameters after k micro batches, whose gradients an optimizer accumulates."""
    estimator = estimators.exact(MODEL, objectives.squared_error, unroll=CHUNKED)
    optimizer = optax.MultiSteps(optax.sgd(0.5), k, **ACCUMULATED)

    def split(a):
        return jnp.swapaxes(a.reshape(a.shape[0], k, B // k, *a.shape[2:]), 0, 1)

    def step(at, micro):
        params, state = at
        grads = estimator.grad(params, (), micro, jax.random.key(0))[1]
        moves, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, moves), state), None

    @quick_jit
    def run(params, batch):
        start = params, optimizer.init(params)
        return jax.lax.scan(step, start, jax.tree.map(split, batch))[0][0]

    with jax.numpy_dtype_promotion("standard"):
        return run(parameters(), batch)


def test_accumulated_gradients_are_that_of_the_whole_batch():
    real = np.random.default_rng(3).random((T, B)) < 0.6
    real[:, : B // 2] = real[:, B // 2 :]  # as many real steps in each half
    found = after_micro_batches(batch_of(real), 2)
    assert off(found, after_micro_batches(batch_of(real), 1)) <= TOLERANCE
    assert off(found, parameters()) > 1e-3


def test_a_mean_of_means_is_another_where_real_steps_differ():
    """Why: optax takes the mean of gradients of means over unlike numbers of steps."""
    real = np.ones((T, B), bool)
    real[2:, : B // 2] = False
    batch = batch_of(real)
    assert off(after_micro_batches(batch, 2), after_micro_batches(batch, 1)) > 1e-3


# An outer loop: act, store, learn


def updates(unroll, model, params, resets_of, n=3):
    """n updates of REINFORCE, each of a rollout that goes on where the last one ended.

    Returns parameters, and how far the log-probabilities that the learner computes are
    from those of the actions as they were drawn.
    """

    def log_probs(logits, actions):
        each = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(each, actions[..., None], -1)[..., 0]

    def one(at, key):
        params, carry, before = at
        k_xs, k_dones, k_actions = jax.random.split(key, 3)
        xs = jax.random.normal(k_xs, (T, B, I), jnp.float64)
        dones = jax.random.bernoulli(k_dones, 0.3, (T, B))

        def act(state, inputs):
            carry, starts = state
            x, done, key = inputs
            side = Side(resets=starts[None])
            carry, logits = unrolls.scan(model, params, carry, x[None], side)
            action = jax.random.categorical(key, logits[0])
            return (carry, done), (starts, action, log_probs(logits[0], action))

        inputs = xs, dones, jax.random.split(k_actions, T)
        after, (starts, actions, drawn) = jax.lax.scan(act, (carry, before), inputs)

        def loss(params):
            side = Side(resets=resets_of(starts, dones))
            logits = unroll(model, params, carry, xs, side)[1]
            found = log_probs(logits, actions)
            gains = jnp.where(actions == 0, xs[..., 0], -xs[..., 0])
            return -(found * gains).mean(), jnp.abs(found - drawn).max()

        grads, distance = jax.grad(loss, has_aux=True)(params)
        params = jax.tree.map(lambda p, d: p - 0.5 * d, params, grads)
        return (params, *after), distance

    start = params, model.init_carry(params, (B,)), jnp.ones(B, bool)
    keys = jax.random.split(jax.random.key(1), n)
    (params, *_), distances = jax.lax.scan(one, start, keys)
    return params, distances


def test_a_loop_over_updates_that_act_and_learn():
    """The learner sees the policy that acted: with the flags it acted by, not with
    `dones`, which are one step early."""

    def run(unroll, resets_of):
        f = functools.partial(updates, unroll, MODEL, resets_of=resets_of)
        return quick_jit(f)(parameters())

    def right(starts, dones):
        del dones
        return starts

    def wrong(starts, dones):
        del starts
        return dones

    params, distances = run(CHUNKED, right)
    want, _ = run(unrolls.scan, right)
    assert off(params, want) <= TOLERANCE
    assert off(params, parameters()) > 1e-2
    assert np.max(distances) < 1e-12
    params, distances = run(CHUNKED, wrong)
    assert off(params, want) > 1e-3
    assert np.min(distances) > 1e-2
