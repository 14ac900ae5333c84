"""The experiment's own parts: its environment, its advantages, what its learner sees."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import sequences
from bptt_jax._jax import enable_x64

PATH = pathlib.Path(__file__).parents[2] / "experiments/recurrent_policy/run.py"


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("recurrent_policy_run", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def float32():
    with enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def test_who_names_the_first_symbol_is_rewarded_until_the_episode_ends(run):
    n, T = 50, 40

    def step(env, key):
        after, reward, done = run.act(env, env.first, key)
        return after, (env, after, reward, done)

    env = run.begin(jax.random.key(0), n)
    assert (env.first == env.seen).all()
    _, (before, after, reward, done) = jax.lax.scan(
        step, env, jax.random.split(jax.random.key(1), T)
    )
    assert (reward == 1).all()
    np.testing.assert_array_equal(done, before.left == 1)
    np.testing.assert_array_equal(after.first[done], after.seen[done])
    np.testing.assert_array_equal(after.first[~done], before.first[~done])
    ends = np.asarray(done)
    for column in ends.T:  # whole episodes, all of the lengths that there may be
        lengths = np.diff(np.flatnonzero(column))
        assert all((run.SHORTEST <= lengths) & (lengths <= run.LONGEST))
    assert 0.2 < (before.seen == before.first)[1:].mean() < 0.5
    wrong = run.act(env, (env.first + 1) % run.SYMBOLS, jax.random.key(2))[1]
    assert not wrong.any()


def test_advantages_are_those_of_a_loop(run):
    rng, T, B = np.random.default_rng(0), 9, 3
    value, reward = rng.normal(size=(2, T, B)).astype("f")
    done, last = rng.random((T, B)) < 0.3, rng.normal(size=B).astype("f")
    none = jnp.zeros((T, B))
    steps = run.Step(none, none, none, none, value, reward, done)
    want, a = np.zeros((T, B)), np.zeros(B)
    for t in reversed(range(T)):
        after = last if t == T - 1 else value[t + 1]
        going = run.GAMMA * ~done[t]
        a = reward[t] + going * after - value[t] + run.LAMBDA * going * a
        want[t] = a
    found = run.advantages(steps, last)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["GRU with resets", "GRU, learns with done as resets"])
def test_the_learner_sees_the_policy_that_acted_if_its_flags_are_right(run, name):
    variant = run.VARIANTS[name]
    model = run.actor_critic(variant.trunk)
    params = model.init(jax.random.key(0))

    @jax.jit
    def two_rollouts(params):
        env, first = run.begin(jax.random.key(1), run.ENVS), jnp.ones(run.ENVS, bool)
        at = env, model.init_carry(params, (run.ENVS,)), first
        at, _ = run.rollout(variant, model, params, at, jax.random.key(2))
        _, steps = run.rollout(variant, model, params, at, jax.random.key(3))
        resets = variant.learning(steps)
        _, logits, values = run.outputs(model, params, at[1], steps.obs, resets)
        off = run.log_prob_of(logits, steps.action) - steps.log_prob
        return at, steps, jnp.abs(off).max(), jnp.abs(values - steps.value).max()

    at, steps, *distances = two_rollouts(params)
    starts = sequences.episode_starts(steps.done, at[2])
    np.testing.assert_array_equal(steps.starts, starts)
    if variant.learning(steps) is steps.starts:
        assert max(distances) < 1e-4
    else:
        assert min(distances) > 1e-2
