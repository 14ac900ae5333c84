"""Synthetic tasks: their definitions, and their baselines by large samples."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import tasks
from bptt_jax._jax import enable_x64

SYNTHETIC = {
    "adding": tasks.adding,
    "coin": tasks.coin,
    "copy_memory": tasks.copy_memory,
    "sine": tasks.sine,
    "temporal_order": tasks.temporal_order,
}
each = pytest.mark.parametrize("make", SYNTHETIC.values(), ids=SYNTHETIC)


def drawn(task, seed=0):
    item, key = task.train.read(0, 1)[0], jax.random.key(seed)
    return jax.device_get(jax.jit(task.train.batch)(item, key))


def counted(task, ys, batch):
    """Mean loss of the steps that count."""
    targets, weights = batch.side.targets
    return np.average(jax.jit(task.objective)(ys, targets), weights=weights)


def same(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in leaves)


@each
def test_a_batch_is_a_function_of_its_key(make):
    task = make(batch=3, T=12)
    assert same(drawn(task), drawn(task))
    assert not same(drawn(task), drawn(task, 1))
    assert task.train.length is None


@each
def test_held_out_is_the_same_each_time(make):
    task = make(batch=3, T=12)
    stream = task.held_out
    assert stream.length == 10
    items = stream.read(0, stream.length)
    batch = jax.jit(stream.batch)
    batches = [batch(item, jax.random.key(7)) for item in items]
    again = [batch(item, jax.random.key(8)) for item in stream.read(10, 10)]
    assert same(batches, again)
    assert not same(batches[0], batches[1])


@each
def test_shapes_and_dtypes(make):
    task = make(batch=3, T=12)
    inputs, side, _ = drawn(task)
    assert inputs.shape[1] == 3
    if task.tokens:
        assert inputs.dtype == jnp.int32
        assert 0 <= inputs.min() <= inputs.max() < task.n_in
    else:
        assert inputs.dtype == jnp.float32
        assert inputs.shape[2] == task.n_in
    ys = np.zeros((*inputs.shape[:2], task.n_out), np.float32)
    targets = getattr(side.targets, "targets", side.targets)
    losses = jax.eval_shape(task.objective, ys, targets)
    assert losses.shape == inputs.shape[:2]


@each
def test_equal_settings_give_the_same_task(make):
    assert make(batch=3, T=12) is make(T=12, batch=3)


@each
@pytest.mark.parametrize("wrong", [{"batch": 0}, {"T": -1}, {"T": 2.5}])
def test_wrong_sizes_are_named(make, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{name} .*at least 1.*got {value}"):
        make(**wrong)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (tasks.adding, {"T": 1}, "T must be at least 2"),
        (tasks.temporal_order, {"T": 9}, "T must be at least 10.*got 9"),
        (tasks.coin, {"t1": 4, "t2": 4}, "different lags"),
        (tasks.sine, {"shortest": 5.0, "longest": 4.0}, "shortest < longest.*got"),
        (tasks.sine, {"longest": math.nan}, "shortest < longest"),
    ],
)
def test_wrong_settings_are_named(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_strict_promotion_and_float64():
    with jax.numpy_dtype_promotion("strict"), enable_x64(True):
        for make in SYNTHETIC.values():
            task = make(batch=5, T=11)
            for stream in (task.train, task.held_out):
                item, key = stream.read(3, 1)[0], jax.random.key(0)
                batch = jax.eval_shape(stream.batch, item, key)
                assert batch.inputs.dtype in (jnp.float32, jnp.int32)


@pytest.mark.parametrize("T", [2, 7])
def test_adding(T):
    task = tasks.adding(batch=20_000, T=T)
    inputs, side, _ = drawn(task)
    values, markers = inputs[..., 0], inputs[..., 1]
    np.testing.assert_array_equal(markers[: T // 2].sum(0), 1)
    np.testing.assert_array_equal(markers[T // 2 :].sum(0), 1)
    assert (markers.sum(1) > 0).all()
    np.testing.assert_allclose(
        side.targets.targets[-1, :, 0], (values * markers).sum(0), rtol=1e-6
    )
    np.testing.assert_array_equal(side.targets.weights.sum(0), 1)
    ones = np.ones_like(side.targets.targets)
    estimate = counted(task, ones, drawn(task))
    assert estimate == pytest.approx(task.baselines["predict 1"], rel=0.05)
    assert task.baselines["predict 1"] == 1 / 6


@pytest.mark.parametrize("T", [1, 2, 30])
def test_copy_memory(T):
    task = tasks.copy_memory(batch=50, T=T)
    xs, side, _ = drawn(task)
    targets = side.targets
    assert xs.shape == targets.shape == (T + 20, 50)
    np.testing.assert_array_equal(targets[-10:], xs[:10])
    assert set(np.unique(xs[:10])) == set(range(1, 9))
    np.testing.assert_array_equal(targets[: T + 10], 0)
    np.testing.assert_array_equal(xs[10 : T + 9], 0)
    np.testing.assert_array_equal(xs[T + 9], 9)
    np.testing.assert_array_equal(xs[T + 10 :], 0)


def test_copy_memory_baseline():
    for T, nats in {10: 0.6931, 20: 0.5199, 100: 0.1733, 500: 0.04}.items():
        baselines = tasks.copy_memory(T=T).baselines
        assert baselines["no memory"] == pytest.approx(nats, abs=5e-5)
    task = tasks.copy_memory(T=10)
    xs, side, _ = drawn(task)
    sure_then_guess = np.zeros((*xs.shape, 9), np.float32)
    sure_then_guess[:20, :, 0] = 100
    sure_then_guess[20:, :, 0] = -100
    losses = jax.jit(task.objective)(sure_then_guess, side.targets)
    assert losses.mean() == pytest.approx(task.baselines["no memory"], rel=1e-5)


@pytest.mark.parametrize("T", [10, 37])
def test_temporal_order(T):
    task = tasks.temporal_order(batch=2000, T=T)
    xs, side, _ = drawn(task)
    xs, labels = np.asarray(xs), np.asarray(side.targets.targets)
    where = [np.flatnonzero(column < 2) for column in xs.T]
    assert all(len(w) == 2 for w in where)
    first, second = np.array(where).T
    assert T // 10 == first.min() <= first.max() == 2 * T // 10 - 1
    assert 5 * T // 10 == second.min() <= second.max() == 6 * T // 10 - 1
    rows = np.arange(2000)
    np.testing.assert_array_equal(labels[-1], 2 * xs[first, rows] + xs[second, rows])
    np.testing.assert_array_equal(np.unique(xs), np.arange(6))
    np.testing.assert_allclose(np.bincount(labels[-1]) / 2000, 0.25, atol=0.05)
    guess = counted(task, np.zeros((T, 2000, 4), np.float32), drawn(task))
    assert guess == pytest.approx(task.baselines["chance"], rel=1e-5)


def test_coin_baselines():
    expected = {"nothing": 0.6616, "only t2": 0.6277, "only t1": 0.5192, "both": 0.4545}
    assert tasks.coin().baselines == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("lags", [(3, 8), (5, 2)])
def test_coin_by_sampling(lags):
    t1, t2 = lags
    task = tasks.coin(batch=4000, T=30, t1=t1, t2=t2)
    batch = drawn(task)
    xs = np.asarray(batch.inputs)
    late = max(lags)
    np.testing.assert_array_equal(batch.side.targets.weights[:late], 0)
    np.testing.assert_array_equal(batch.side.targets.weights[late:], 1)
    half = np.full_like(xs, 0.5)
    for name, (knows1, knows2) in {
        "nothing": (0, 0),
        "only t2": (0, 1),
        "only t1": (1, 0),
        "both": (1, 1),
    }.items():
        cause1 = np.roll(xs, t1, 0) if knows1 else half
        cause2 = np.roll(xs, t2, 0) if knows2 else half
        p = np.clip(0.5 + 0.5 * cause1 - 0.25 * cause2, 1e-7, 1 - 1e-7)
        logits = jnp.asarray(np.log(p / (1 - p)))
        assert counted(task, logits, batch) == pytest.approx(
            task.baselines[name], abs=0.01
        )


def test_coin_in_a_window_too_short_counts_the_last_step():
    weights = drawn(tasks.coin(T=4)).side.targets.weights
    np.testing.assert_array_equal(weights.sum(1) > 0, [False, False, False, True])


def test_sine_goes_on_and_its_baselines_hold():
    task = tasks.sine(batch=20_000, T=6)
    xs, side, _ = drawn(task)
    np.testing.assert_array_equal(side.targets[:-1], xs[1:])
    for name, ys in {"predict 0": xs * 0, "predict the last value": xs}.items():
        estimate = jax.jit(task.objective)(ys, side.targets).mean()
        assert estimate == pytest.approx(task.baselines[name], rel=0.03)


def test_one_sine_obeys_its_recurrence():
    xs = np.asarray(drawn(tasks.sine(batch=4, T=30, waves=1)).inputs, np.float64)[
        ..., 0
    ]
    twice_cosine = (xs[2:] + xs[:-2]) / xs[1:-1]
    steady = np.median(twice_cosine, 0)
    np.testing.assert_allclose(xs[2:] + xs[:-2], steady * xs[1:-1], atol=1e-4)


def test_the_command_line_can_make_every_task_but_a_file_by_defaults():
    for name, make in tasks.TASKS.items():
        required = [
            parameter
            for parameter in inspect.signature(make).parameters.values()
            if parameter.default is parameter.empty
        ]
        assert [p.name for p in required] == (["path"] if name == "text_file" else [])
