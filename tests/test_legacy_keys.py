"""`jax.random.PRNGKey` works wherever `jax.random.key` does, and draws the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import (
    Side,
    cells,
    diagnose,
    estimators,
    layers,
    models,
    objectives,
    sweep,
    tasks,
    train,
    unrolls,
)
from bptt_jax.types import Batch
from support import tiers
from support.gradients import initial, quick_jit
from support.members import CELLS, LAYERS, UNROLLS

T, B, I, H = 5, 2, 3, 4
SEED = 3
MAKERS = jax.random.key, jax.random.PRNGKey


def same(of):
    """`of(make)`, a function of how keys are made, gives the same bits for both."""
    found = [jax.tree.leaves(of(make)) for make in MAKERS]
    assert found[0]
    for a, b in zip(*found, strict=True):
        a, b = (jax.random.key_data(x) if _is_key(x) else x for x in (a, b))
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def _is_key(a):
    return jnp.issubdtype(a.dtype, jax.dtypes.prng_key)


NOISY = cells.zoneout(cells.elman(I, H), 0.3)
DRAWS = layers.stack(
    layers.dropout(0.3),
    layers.recurrent(cells.zoneout(NOISY, 0.2)),
    layers.variational_dropout(0.3, H),
)
XS = np.random.default_rng(0).normal(size=(T, B, I)).astype("f")
FLAGS = np.random.default_rng(1).random((2, T, B)) < 0.6


@functools.cache
def at(layer=DRAWS):
    params = initial(layer, (0, 0))
    return params, layer.init_carry(params, (B,))


def side(make, **more):
    return Side(keys=jax.random.split(make(SEED), T), **more)


@pytest.mark.parametrize("name", [*UNROLLS, "scan"])
def test_side(name):
    """With mask and resets, which wrap what the keys go to."""
    unroll = unrolls.scan if name == "scan" else UNROLLS[name].unroll
    layer = DRAWS if name == "bptt" else layers.recurrent(NOISY)
    params, carry = at(layer)

    @quick_jit
    def gradient(params, keys):
        def loss(params):
            s = Side(mask=FLAGS[0], resets=FLAGS[1], keys=keys)
            return (unroll(layer, params, carry, XS, s)[1] ** 2).sum()

        return jax.value_and_grad(loss)(params)

    same(lambda make: gradient(params, jax.random.split(make(SEED), T)))


def test_the_keys_that_are_refused():
    params, carry = at()
    for keys in (np.zeros((T, 3), np.uint32), np.zeros((T, 2), np.int32)):
        with pytest.raises(TypeError, match=r"side\.keys: expected \[T\] keys"):
            unrolls.bptt(DRAWS, params, carry, XS, Side(keys=keys))


def test_one_step_and_one_stretch():
    params, carry = at()
    cell = cells.zoneout(cells.gru(I, H), 0.4)
    p = initial(cell, (0, 0))
    c = cell.init_carry(p, (B,))
    step = quick_jit(lambda key: cell.step(p, c, (XS[0], key)))
    same(lambda make: step(make(SEED)))
    stretch = quick_jit(lambda side: DRAWS.fwd(params, carry, XS, side)[:2])
    same(lambda make: stretch(side(make, mask=FLAGS[0])))


@pytest.mark.parametrize("name", ["lstm", "learned_carry", "zoneout", "from_step"])
def test_parameters(name):
    both = CELLS[name].make(), LAYERS["character model"].make()
    init = quick_jit(lambda key: [made.init(key) for made in both])
    same(lambda make: init(make(SEED)))


def test_random_truncation():
    cell = cells.elman(I, H)
    params = initial(cell, (0, 0))
    carry = cell.init_carry(params, (B,))

    def loss(params, **options):
        run = unrolls.randomly_truncated
        return (run(cell, params, carry, XS, mean_length=2, **options)[1] ** 2).sum()

    gradient = quick_jit(jax.grad(loss))
    same(lambda make: gradient(params, key=make(SEED)))
    same(lambda make: gradient(params, side=side(make)))


MODEL = models.features((cells.gru(I, H),), 2, H, dropout=0.3)
BATCH = Batch(XS, Side(targets=np.ones((T, B, 2), "f")))
EXACT = estimators.exact(MODEL, objectives.squared_error)


@functools.cache
def of_model():
    return initial(MODEL, (0, 0))


ESTIMATORS = {
    "exact": EXACT,
    "stream": estimators.stream(MODEL, objectives.squared_error),
    "overlapping": estimators.stream(
        MODEL, objectives.squared_error, window=5, stride=1
    ),
    "data_parallel": estimators.data_parallel(EXACT, jax.make_mesh((1,), ("data",))),
    "regularised": diagnose.regularised(MODEL, objectives.squared_error, alpha=1.0),
    "adaptive": diagnose.adaptive_truncation(
        MODEL, objectives.squared_error, windows=(1, 2)
    ),
}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *[(name, "the batch's key") for name in ESTIMATORS],
        *[
            tiers.slow((name, "keys of its own"), name in ("exact", "stream"))
            for name in ESTIMATORS  # the others run one of these two
        ],
    ],
)
def test_estimators(name, given):
    estimator, params = ESTIMATORS[name], of_model()

    @quick_jit
    def gradient(batch, key):
        return estimator.grad(params, estimator.init(params, batch), batch, key)

    def of(make):
        batch = BATCH
        if given == "keys of its own":
            batch = Batch(XS, side(make, targets=BATCH.side.targets))
        return gradient(batch, make(SEED))

    same(of)


@pytest.mark.parametrize(
    "make",
    [tasks.adding, tasks.coin, tasks.copy_memory, tasks.sine, tasks.temporal_order],
)
def test_tasks(make):
    task = make(batch=2)
    for stream in (task.train, task.held_out):
        item = stream.read(0, 1)[0]
        batch = quick_jit(functools.partial(stream.batch, item))
        same(lambda make, batch=batch: batch(make(SEED)))


def test_training():
    task = tasks.adding(batch=2, T=4)
    model = models.features((cells.gru(2, H),), 1, H, dropout=0.3)
    estimator = estimators.exact(model, task.objective)
    optimizer = optax.adam(1e-2)

    def two_steps(make):
        state = train.init(model, estimator, optimizer, task.train, make(SEED))
        advance = train.many_steps(estimator, optimizer, task.train.batch)
        return advance(state, task.train.read(0, 2))

    same(two_steps)


def test_generate():
    model = models.symbols(5, 3, (cells.gru(3, H),), 5, H)
    params, tokens = initial(model, (0, 0)), np.array([1, 2])
    same(lambda make: models.generate(model, params, tokens, 6, 1.0, make(SEED)))


def test_sweep():
    def space(make):
        return sweep.random(
            4, make(SEED), lr=sweep.log_uniform(1e-3, 1.0), n=sweep.integers(1, 9),
            a=sweep.uniform(0.0, 1.0), b=sweep.choice([1, 2, 3]),
        ).columns  # fmt: skip

    assert space(jax.random.key) == space(jax.random.PRNGKey)


def test_diagnoses():
    params, stream = of_model(), ESTIMATORS["stream"]
    bias = quick_jit(lambda key: diagnose.bias(stream, EXACT, params, BATCH, key))
    same(lambda make: bias(make(SEED)))
