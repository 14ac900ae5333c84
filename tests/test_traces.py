"""Equal shapes are traced and compiled once; no tracer leaks."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, layers, models, objectives, unrolls
from bptt_jax.types import Batch, Side
from support import tiers
from support.compilations import compilations
from support.gradients import initial
from support.members import UNROLLS as MEMBERS

T, B, I, H = 6, 2, 3, 4
UNROLLS = {
    "scan": unrolls.scan,
    "bptt, chunk": functools.partial(unrolls.bptt, chunk=4),
    **{name: member.unroll for name, member in MEMBERS.items()},
}
FACTORIES = {
    "elman": lambda: cells.elman(I, H),
    "lstm": lambda: cells.lstm(I, n_hidden=H),
    "stack": lambda: layers.stack(
        layers.remat(layers.recurrent(cells.gru(I, H))), layers.dense(H, 2)
    ),
}


SOME = [tiers.slow(name, name != "elman") for name in FACTORIES]


def arguments(layer, seed=0):
    """NumPy's: they are no programs."""
    params = initial(layer, (0, seed))
    carry = jax.eval_shape(lambda: layer.init_carry(params, (B,)))
    xs = np.random.default_rng(seed).normal(size=(T, B, I)).astype("f")
    return params, jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), carry), xs


def gradient(layer, unroll, params, carry, xs, side=Side()):
    def loss(params, carry, xs):
        return (unroll(layer, params, carry, xs, side)[1] ** 2).sum()

    return jax.grad(loss, (0, 1, 2))(params, carry, xs)


def test_the_count_sees_a_compilation():
    f = jax.jit(lambda x: x * 2.5)
    with compilations() as first:
        f(np.ones(3, "f"))
    with compilations() as another_shape:
        f(np.ones(4, "f"))
    with compilations() as again:
        f(np.ones(4, "f"))
    assert [len(first), len(another_shape), len(again)] == [1, 1, 0]


@pytest.mark.parametrize(
    ("unroll", "factory"), [*((name, "lstm") for name in UNROLLS), ("bptt", "stack")]
)
def test_an_unroll_compiles_once(unroll, factory):
    """Called as it is, not under `jit`; the layer is made anew for each call."""
    unroll, make = UNROLLS[unroll], FACTORIES[factory]
    at, other = arguments(make(), seed=0), arguments(make(), seed=1)
    jax.clear_caches()
    with compilations() as first:
        _, ys = unroll(make(), *at)
    with compilations() as again:
        unroll(make(), *at)
        _, other_ys = unroll(make(), *other)
    assert first
    assert not again
    assert np.abs(np.asarray(ys) - np.asarray(other_ys)).max() > 1e-3


@pytest.mark.parametrize("factory", SOME)
def test_a_gradient_compiles_once(factory):
    make = FACTORIES[factory]
    at = arguments(make())
    side = Side(mask=np.ones((T, B), bool), resets=np.zeros((T, B), bool))
    jax.clear_caches()
    with compilations() as first:
        gradient(make(), unrolls.bptt, *at, side)
    with compilations() as again:
        gradient(make(), unrolls.bptt, *at, side)
    assert first
    assert not again


def test_a_cell_made_anew_is_not_traced_anew():
    at = arguments(cells.lstm(I, H))

    @functools.partial(jax.jit, static_argnums=0)
    @chex.assert_max_traces(n=1)
    def run(cell, params, carry, xs):
        return gradient(cell, unrolls.bptt, params, carry, xs)

    for make in (cells.lstm(I, H), cells.lstm(n_in=I, n_hidden=H), cells.lstm(I, H)):
        run(make, *at)
    with pytest.raises(AssertionError, match="traced"):
        run(cells.lstm(I, H, forget_bias=2.0), *at)


def test_a_training_step_is_traced_once():
    """100 steps of a model with masks and resets, made anew for each step."""
    optimizer = optax.adam(1e-2)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state, xs, side):
        model = models.features((cells.gru(I, H),), 2, H)
        layer = layers.with_loss(model, objectives.squared_error)

        def loss(params):
            carry = layer.init_carry(params, (B,))
            return unrolls.bptt(layer, params, carry, xs, side)[1].sum()

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    params = models.features((cells.gru(I, H),), 2, H).init(jax.random.key(0))
    state, rng = optimizer.init(params), np.random.default_rng(0)
    values = []
    for _ in range(100):
        flags = rng.random((2, T, B)) < 0.5
        targets = rng.normal(size=(T, B, 2)).astype("f")
        xs = rng.normal(size=(T, B, I)).astype("f")
        side = Side(mask=flags[0], resets=flags[1], targets=targets)
        params, state, value = step(params, state, xs, side)
        values.append(float(value))
    assert step._cache_size() == 1
    assert len(set(values)) == 100


@pytest.mark.parametrize("make", [estimators.exact, estimators.stream])
def test_an_estimator_compiles_once(make):
    """Called as it is, not under `jit`; model and estimator are made anew."""

    def value(seed):
        model = models.features((cells.gru(I, H),), 2, H)
        estimator = make(model, objectives.squared_error)
        rng = np.random.default_rng(seed)
        xs, ys = (rng.normal(size=(T, B, n)).astype("f") for n in (I, 2))
        batch = Batch(xs, Side(targets=ys))
        params = model.init(jax.random.key(seed))
        state = estimator.init(params, batch)
        return float(estimator.grad(params, state, batch, jax.random.key(seed))[0])

    jax.clear_caches()
    with compilations() as first:
        value(0)
    with compilations() as again:
        other = [value(0), value(1)]
    assert first
    assert not again
    assert other[0] != other[1]


def test_generating_compiles_once():
    def symbols(seed):
        model = models.symbols(5, I, (cells.gru(I, H),), 5, H)
        params = model.init(jax.random.key(seed))
        tokens, key = jnp.arange(3), jax.random.key(seed)
        return np.asarray(models.generate(model, params, tokens, 20, 1.0, key))

    jax.clear_caches()
    with compilations() as first:
        symbols(0)
    with compilations() as again:
        other = symbols(0), symbols(1)
    assert first
    assert not again
    assert (other[0] != other[1]).any()


@pytest.mark.parametrize("factory", SOME)
def test_no_tracer_leaks(factory):
    layer = FACTORIES[factory]()
    at = arguments(layer)
    with jax.checking_leaks():
        grads = jax.jit(functools.partial(gradient, layer, unrolls.bptt))(*at)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(grads))


@pytest.mark.slow
def test_a_leak_is_found():
    kept = []

    def leaking(x):
        kept.append(jnp.sin(x))
        return x

    with jax.checking_leaks(), pytest.raises(Exception, match="[Ll]eaked"):
        jax.jit(leaking)(1.0)
