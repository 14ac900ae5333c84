"""What does a recurrent policy need to remember within an episode, and forget between two?

    python experiments/recurrent_policy/run.py            minutes, goes on after a stop
    python experiments/recurrent_policy/run.py --quick    seconds, writes nothing

Repeat first: at every step the agent sees one of 4 symbols and is rewarded for naming the
one that its episode began with. Episodes have 6 to 16 steps and nothing in them says where
one begins: that is known to the `done` flags of the environment alone. PPO, all of it, the
environment included, one JAX program; rollouts hold pieces of several episodes, and the
state at the end of one is where the next begins.
"""

import functools
import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from bptt_jax import Layer, Side, cells, layers, plots, unrolls

sys.path.append(str(pathlib.Path(__file__).parent.parent))
from _results import Results, quick  # noqa: E402

HERE = pathlib.Path(__file__).parent
SYMBOLS, SHORTEST, LONGEST = 4, 6, 16
ENVS, STEPS, UPDATES, SEEDS, HIDDEN = 64, 64, 300, 5, 32
EPOCHS, PARTS = 4, 2
POINT, TAIL = 5, 6  # updates that a point of a curve is the mean of; points of its end
GAMMA, LAMBDA, CLIP, ENTROPY, VALUE, RATE = 0.9, 0.9, 0.2, 0.01, 0.5, 3e-3


# The environment


class Env(NamedTuple):
    """Of each episode: its first symbol, the symbol that is seen, and the steps left."""

    first: Array
    seen: Array
    left: Array


def begin(key: Array, n: int) -> Env:
    """n new episodes."""
    k_seen, k_left = jax.random.split(key)
    seen = jax.random.randint(k_seen, (n,), 0, SYMBOLS)
    return Env(seen, seen, jax.random.randint(k_left, (n,), SHORTEST, LONGEST + 1))


def act(env: Env, action: Array, key: Array) -> tuple[Env, Array, Array]:
    """One step: `(env, reward, done)`; where `done`, the next episode has begun."""
    k_seen, k_new = jax.random.split(key)
    reward = (action == env.first).astype(jnp.float32)
    done, new = env.left == 1, begin(k_new, action.size)
    seen = jax.random.randint(k_seen, action.shape, 0, SYMBOLS)
    same = Env(env.first, seen, env.left - 1)
    return jax.tree.map(lambda a, b: jnp.where(done, a, b), new, same), reward, done


def observe(env: Env) -> Array:
    return jax.nn.one_hot(env.seen, SYMBOLS)


# The policy


def _tanh(params, xs):
    del params
    return jnp.tanh(xs)


def _nothing(key):
    del key
    return ()


def actor_critic(trunk: Layer):
    """Outputs `[T, B, SYMBOLS + 1]`: the logits of the actions, and the value."""
    return layers.stack(trunk, layers.dense(HIDDEN, SYMBOLS + 1))


GRU = layers.recurrent(cells.gru(SYMBOLS, HIDDEN))
MLP = layers.stack(
    layers.dense(SYMBOLS, HIDDEN), layers.time_distributed(_nothing, _tanh)
)


class Step(NamedTuple):
    """What is kept of a step, leaves `[T, B, ...]`."""

    obs: Array
    starts: Array  # whether `obs` is the first of its episode
    action: Array
    log_prob: Array
    value: Array
    reward: Array
    done: Array  # whether the episode ended with the action


class Variant(NamedTuple):
    """A policy, and which flags reset it as it acts and as it learns."""

    trunk: Layer
    acting: Callable  # (starts) -> resets
    learning: Callable  # (steps) -> resets


def _never(starts: Array) -> Array:
    return jnp.zeros_like(starts)


VARIANTS = {
    "GRU with resets": Variant(GRU, lambda starts: starts, lambda s: s.starts),
    "no memory": Variant(MLP, lambda starts: starts, lambda s: s.starts),
    "GRU, resets ignored": Variant(GRU, _never, lambda s: _never(s.starts)),
    "GRU, learns with done as resets": Variant(
        GRU, lambda starts: starts, lambda s: s.done
    ),
}


def outputs(model, params, carry, obs: Array, resets: Array):
    """`(carry, logits, values)` of a sequence."""
    carry, ys = unrolls.bptt(model, params, carry, obs, Side(resets=resets))
    return carry, ys[..., :-1], ys[..., -1]


# PPO


def rollout(variant: Variant, model, params, at, key: Array):
    """STEPS steps of all environments, from `at = (env, carry, dones)`."""

    def step(at, key):
        (env, carry, starts), (k_action, k_env) = at, jax.random.split(key)
        obs, resets = observe(env), variant.acting(starts)
        carry, logits, value = outputs(model, params, carry, obs[None], resets[None])
        action = jax.random.categorical(k_action, logits[0])
        log_prob = log_prob_of(logits[0], action)
        env, reward, done = act(env, action, k_env)
        kept = Step(obs, starts, action, log_prob, value[0], reward, done)
        return (env, carry, done), kept

    return lax.scan(step, at, jax.random.split(key, STEPS))


def log_prob_of(logits: Array, action: Array) -> Array:
    each = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(each, action[..., None], -1)[..., 0]


def advantages(steps: Step, last: Array) -> Array:
    """Generalized advantage estimation; `last` is the value after the last step."""
    going = GAMMA * (1.0 - steps.done)
    after = jnp.concatenate([steps.value[1:], last[None]])
    errors = steps.reward + going * after - steps.value

    def back(a, at):
        error, going = at
        a = error + LAMBDA * going * a
        return a, a

    return lax.scan(back, jnp.zeros_like(last), (errors, going), reverse=True)[1]


def loss(params, model, carry, steps: Step, gains: Array, resets: Array) -> Array:
    """PPO's clipped surrogate, the squared error of the value, less the entropy."""
    _, logits, values = outputs(model, params, carry, steps.obs, resets)
    ratio = jnp.exp(log_prob_of(logits, steps.action) - steps.log_prob)
    scaled = (gains - gains.mean()) / (gains.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
    policy = -jnp.minimum(ratio * scaled, clipped * scaled).mean()
    value = jnp.square(values - lax.stop_gradient(steps.value + gains)).mean()
    each = jax.nn.log_softmax(logits)
    entropy = -(jnp.exp(each) * each).sum(-1).mean()
    return policy + VALUE * value - ENTROPY * entropy


OPTIMIZER = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(RATE))


def learn(variant: Variant, model, params, state, carry, steps: Step, gains, key):
    """EPOCHS times over all environments, in PARTS parts, each from its stored state."""
    resets = variant.learning(steps)

    def update(at, chosen):
        params, state = at
        some = jax.tree.map(lambda a: a[:, chosen], (steps, gains, resets))
        first = jax.tree.map(lambda a: a[chosen], carry)
        grads = jax.grad(loss)(params, model, first, *some)
        moves, state = OPTIMIZER.update(grads, state, params)
        return (optax.apply_updates(params, moves), state), None

    orders = jax.vmap(lambda k: jax.random.permutation(k, ENVS))(
        jax.random.split(key, EPOCHS)
    )
    return lax.scan(update, (params, state), orders.reshape(EPOCHS * PARTS, -1))[0]


def success(steps: Step) -> Array:
    """Share of the episodes that ended in which the last action was right."""
    return (steps.reward * steps.done).sum() / jnp.maximum(1, steps.done.sum())


@functools.partial(jax.jit, static_argnames=("variant", "updates"))
def trained(variant: Variant, key: Array, updates: int) -> Array:
    """The success rate during each update, `[updates]`."""
    model = actor_critic(variant.trunk)
    k_params, k_env, k_train = jax.random.split(key, 3)
    params = model.init(k_params)
    carry = model.init_carry(params, (ENVS,))
    at = begin(k_env, ENVS), carry, jnp.ones(ENVS, bool)

    def one(state, key):
        params, adam, at = state
        k_rollout, k_learn = jax.random.split(key)
        stored = at[1]
        at, steps = rollout(variant, model, params, at, k_rollout)
        env, carry, starts = at
        ahead = observe(env)[None], variant.acting(starts)[None]
        _, _, last = outputs(model, params, carry, *ahead)
        gains = advantages(steps, last[0])
        params, adam = learn(
            variant, model, params, adam, stored, steps, gains, k_learn
        )
        return (params, adam, at), success(steps)

    keys = jax.random.split(k_train, updates)
    return lax.scan(one, (params, OPTIMIZER.init(params), at), keys)[1]


# What it is shown by


def figure(curves: dict[str, np.ndarray]):
    """Success over steps of the environment, of all seeds."""
    series = {}
    for name, each in curves.items():
        steps = np.arange(1, each.shape[1] + 1) * POINT * ENVS * STEPS / 1e6
        series[name] = steps, each
    return plots.curves(
        series, label="steps of the environment, millions",
        unit="episodes whose last answer is right", levels={"a guess": 1 / SYMBOLS},
    )  # fmt: skip


def main():
    brief = quick(__doc__, f"one seed, {POINT} updates")
    updates, seeds = (POINT, 1) if brief else (UPDATES, SEEDS)
    settings = dict(
        symbols=SYMBOLS, episodes=[SHORTEST, LONGEST], environments=ENVS, steps=STEPS,
        updates=updates, hidden=HIDDEN, epochs=EPOCHS, parts=PARTS, gamma=GAMMA,
        lam=LAMBDA, clip=CLIP, entropy=ENTROPY, value=VALUE, learning_rate=RATE,
    )  # fmt: skip
    results = Results(HERE, settings, len(VARIANTS) * seeds, brief)
    curves: dict[str, np.ndarray] = {}
    for name, variant in VARIANTS.items():
        each = []
        for seed in range(seeds):

            def one(variant=variant, seed=seed):
                rates = trained(variant, jax.random.key(seed), updates)
                curve = np.asarray(rates, float).reshape(-1, POINT).mean(1).round(4)
                return dict(end=round(curve[-TAIL:].mean(), 4), curve=curve.tolist())

            found = results.part(f"{name}, seed {seed}", one, "{end:.3f} at the end")
            each.append(found["curve"])
        curves[name] = np.asarray(each)
    ends = {name: each[:, -TAIL:].mean(1) for name, each in curves.items()}
    results.finish(
        success={
            name: dict(
                mean=round(float(end.mean()), 3),
                worst=round(float(end.min()), 3),
                best=round(float(end.max()), 3),
            )
            for name, end in ends.items()
        }
    )
    if not brief:
        figure(curves).savefig(HERE / "recurrent_policy.png", dpi=120)


if __name__ == "__main__":
    main()
