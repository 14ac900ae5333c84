"""Windows of series: which there are, in which part, what forecasts cost, what is refused."""

import math
import pickle
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, models, objectives, tasks, train
from support.batches import batch_of, same

LENGTHS = (60, 47, 83)
RNG = np.random.default_rng(5)


def places(lengths=LENGTHS):
    """The first feature numbers the series, the second its steps."""
    rng = np.random.default_rng(1)
    return [
        np.stack([np.full(n, i), np.arange(n), rng.normal(size=n)], 1)
        for i, n in enumerate(lengths)
    ]


def made(series=None, **options):
    given = dict(T=7, horizon=3, batch=4, held_out=0.25, standardise=False) | options
    return tasks.windows(places() if series is None else series, **given)


def windows_of(stream, epoch=0):
    """Of an epoch each window that counts: inputs `[T, F]`, targets, and its series."""
    for i in range(stream.length):
        inputs, side, _ = batch_of(stream, epoch * stream.length + i)
        (values, series), weights = side.targets
        assert side.mask is None
        assert not weights[:-1].any()
        assert set(weights[-1].tolist()) <= {0.0, 1.0}
        for b in np.flatnonzero(weights[-1]):
            yield inputs[:, b], values[-1, b], int(series[-1, b])


def starts(stream, epoch=0):
    return [(i, int(xs[0, 1])) for xs, _, i in windows_of(stream, epoch)]


# which windows there are


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("held_out", [0.25, 9])
def test_a_window_is_in_the_part_that_has_all_of_its_targets(horizon, stride, held_out):
    task, T = made(horizon=horizon, stride=stride, held_out=held_out), 7
    train_, out, dropped = set(), set(), 0
    for i, n in enumerate(LENGTHS):
        cut = n - (held_out if held_out == 9 else round(n / 4))
        for start in range(n - T - horizon + 1):
            targets = range(start + T, start + T + horizon)
            if all(t < cut for t in targets):
                if (cut - targets.stop) % stride == 0:
                    train_.add((i, start))
            elif all(t >= cut for t in targets):
                if (targets.start - cut) % stride == 0:
                    out.add((i, start))
            else:
                dropped += 1
    assert dropped == len(LENGTHS) * (horizon - 1)
    for stream, wanted in [(task.train, train_), (task.held_out, out)]:
        found = starts(stream)
        assert len(found) == len(wanted)
        assert set(found) == wanted
    assert starts(task.train) != starts(task.train, 1)
    assert sorted(starts(task.train)) == sorted(starts(task.train, 1))
    assert starts(task.held_out) == starts(task.held_out, 1)
    assert task.train.length == math.ceil(len(train_) / 4)


def test_a_window_has_its_steps_and_what_follows():
    series = places()
    task = made(series, targets=[2, 0])
    assert (task.n_in, task.n_out) == (3, 6)
    for stream in (task.train, task.held_out):
        for inputs, values, i in windows_of(stream):
            start = int(inputs[0, 1])
            here = series[i].astype(np.float32)[start : start + 10]
            np.testing.assert_array_equal(inputs, here[:7])
            np.testing.assert_array_equal(values.reshape(3, 2), here[7:][:, [2, 0]])


def test_one_series_with_and_without_an_axis_of_features():
    flat = RNG.normal(size=50)
    several = [made(a) for a in (flat, flat[:, None], [flat])]
    for task in several[1:]:
        same(task.train.read(0, 20), several[0].train.read(0, 20))
    assert several[0].n_in == 1
    counts = made(np.arange(50))  # integers are numbers, no symbols
    assert (counts.tokens, counts.n_in, counts.n_out) == (False, 1, 3)


def test_the_series_may_be_changed_afterwards():
    series = np.stack([np.zeros(50), np.arange(50)], 1).astype(np.float32)
    task = made(series)
    before = task.train.read(0, 5)
    series[:] = 7
    same(task.train.read(0, 5), before)


def test_windows_are_not_copied():
    """All of them would be 1.5 GB, of a series of 4 MB."""
    series = np.arange(1_000_000, dtype=np.float32)
    tracemalloc.start()
    try:
        task = made(series, T=1_000, horizon=100, batch=2)
        item = task.train.read(3, 1)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert task.train.length == (750_000 - 1_100 + 2) // 2
    assert item.inputs.nbytes == 1_000 * 2 * 4


# nothing is learnt of what is held out


@pytest.mark.parametrize("standardise", [False, True])
def test_what_is_held_out_changes_no_bit_of_training(standardise):
    series = places()
    wild = [a.copy() for a in series]
    for a, n in zip(wild, LENGTHS, strict=True):
        a[n - round(n / 4) :] = 1e9
    known, other = (made(a, standardise=standardise, season=5) for a in (series, wild))
    n = 2 * known.train.length
    same(known.train.read(0, n), other.train.read(0, n))
    assert known.encoding == other.encoding
    first = known.held_out.read(0, 1), other.held_out.read(0, 1)
    assert not np.array_equal(first[0].inputs, first[1].inputs)
    assert known.record["sha256"] != other.record["sha256"]


def test_scales_are_those_of_the_training_part():
    series = [a * [1, 3, 5] + [0, 1e6, 2] for a in places()]
    task = made(series, standardise=True, targets=[1, 2])
    seen = np.concatenate([a[: len(a) - round(len(a) / 4)] for a in series])
    inputs, targets = task.encoding.inputs, task.encoding.targets
    np.testing.assert_allclose(inputs.mean, seen.mean(0), rtol=1e-12)
    np.testing.assert_allclose(inputs.deviation, seen.std(0), rtol=1e-12)
    np.testing.assert_allclose(targets.mean, np.tile(seen.mean(0)[1:], 3))
    np.testing.assert_allclose(targets.deviation, np.tile(seen.std(0)[1:], 3))
    for _, values, i in windows_of(task.held_out):
        back = values * np.array(targets.deviation) + targets.mean
        step = round((back[0] - 1e6) / 3)
        wanted = series[i][step : step + 3, 1:].ravel()
        np.testing.assert_allclose(back, wanted, rtol=1e-6, atol=1e-5)


# order


@pytest.mark.parametrize("which", ["train", "held_out"])
def test_a_stream_begun_anywhere_gives_the_same_batches(which):
    stream, again = (getattr(made(), which) for _ in range(2))
    n = 2 * stream.length + 3
    whole = stream.read(0, n)
    for at in reversed(range(n)):
        one = jax.tree.map(lambda a, at=at: a[at : at + 1], whole)
        same(one, again.read(at, 1))
    assert starts(made().train) != starts(made(seed=1).train)


# figures


def figures(forecast, series, season, T=7, horizon=3, columns=slice(None)):
    """MAE, RMSE and MASE of a forecast, window by window in float64."""
    errors, scaled = [], []
    for i, a in enumerate(series):
        cut = len(a) - round(len(a) / 4)
        naive = np.abs(a[season:cut] - a[: cut - season])[:, columns].mean(0)
        for start in range(cut - T, len(a) - T - horizon + 1):
            after = start + T
            wrong = forecast(i, a, after, horizon)[:, columns]
            wrong = wrong - a[after : after + horizon, columns]
            errors.append(wrong)
            scaled.append(np.abs(wrong) / naive)
    errors = np.array(errors)
    return dict(
        MAE=np.abs(errors).mean(),
        RMSE=np.sqrt((errors**2).mean()),
        MASE=np.mean(scaled),
    )


def last_value(i, a, after, horizon):
    return np.repeat(a[after - 1 : after], horizon, 0)


def last_season(season):
    def forecast(i, a, after, horizon):
        return np.stack(
            [a[after + h - season * (h // season + 1)] for h in range(horizon)]
        )

    return forecast


def walks(lengths=LENGTHS):
    """Of another size each, so that MASE is not MAE over one number."""
    each = enumerate(lengths)
    return [10**i * RNG.normal(size=(n, 2)).cumsum(0) + [5, 50] for i, n in each]


@pytest.mark.parametrize("season", [None, 1, 2, 12])
@pytest.mark.parametrize("standardise", [False, True])
def test_simple_forecasts(season, standardise):
    series = walks()
    task = made(series, season=season, standardise=standardise)
    simple = {"last value": last_value}
    simple |= {} if season is None else {"seasonal naive": last_season(season)}
    assert list(task.baselines) == list(simple)
    assert list(task.metrics) == ["MAE", "RMSE", "MASE"]
    for of, forecast in simple.items():
        wanted = figures(forecast, series, season or 1)
        for name, metric in task.metrics.items():
            assert list(metric.baselines) == list(simple)
            assert metric.baselines[of] == pytest.approx(wanted[name], rel=1e-10)
        deviation = np.ones(2)
        if standardise:
            seen = [a[: len(a) - round(len(a) / 4)] for a in series]
            deviation = np.concatenate(seen).std(0)
        scaled = [a / deviation for a in series]
        losses = 6 * figures(forecast, scaled, season or 1)["RMSE"] ** 2
        assert task.baselines[of] == pytest.approx(losses, rel=1e-10)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("targets", [None, [1]])
@pytest.mark.parametrize(("lengths", "empty"), [(LENGTHS, 0), ((603, 47), 1)])
def test_figures_of_a_model_are_in_the_unit_of_the_data(
    standardise, targets, lengths, empty
):
    """A readout that is its bias forecasts the same from everywhere."""
    series, season = walks(lengths), 4
    task = made(series, season=season, standardise=standardise, targets=targets)
    rows = task.held_out.read(0, task.held_out.length).lengths
    assert (rows == 0).sum() == empty
    columns = slice(None) if targets is None else targets
    width = 2 if targets is None else 1
    bias = RNG.normal(size=(3, width))
    model = models.features((cells.elman(2, 4),), task.n_out, 4)
    params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0)))
    of_readout = [a.shape == (task.n_out,) for a in jax.tree.leaves(params)]
    assert sum(of_readout) == 1
    leaves, form = jax.tree.flatten(params)
    leaves[of_readout.index(True)] = jnp.asarray(bias.ravel(), jnp.float32)
    params = jax.tree.unflatten(form, leaves)
    forecast = np.zeros((3, 2))
    mean, deviation = 0.0, 1.0
    if standardise:
        mean, deviation = (np.reshape(a, (3, width)) for a in task.encoding.targets)
    forecast[:, columns] = bias * deviation + mean
    wanted = figures(lambda *_: forecast, series, season, columns=columns)
    found = train.evaluate(task, model, params)
    assert list(found) == ["loss", "MAE", "RMSE", "MASE"]
    for name, number in wanted.items():
        assert found[name] == pytest.approx(number, rel=1e-5)
    wrong = [(values - bias.ravel()) ** 2 for _, values, _ in windows_of(task.held_out)]
    assert found["loss"] == pytest.approx(np.sum(wrong, 1).mean(), rel=1e-5)


def test_a_loss_of_ones_own():
    def absolute(ys, targets):
        return jnp.abs(ys - targets).sum(-1)

    task = made(walks(), objective=absolute)
    assert (task.n_out, task.baselines) == (6, {})
    model = models.features((cells.elman(2, 4),), 6, 4)
    params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0)))
    found = train.evaluate(task, model, params)
    assert found["loss"] == pytest.approx(6 * found["MAE"], rel=1e-5)
    usual = made(walks(), objective=objectives.squared_error)
    assert usual.baselines
    assert usual.objective is made().objective


def test_where_nothing_changes_mase_is_not_finite():
    task = made(np.r_[np.ones(40), np.arange(2.0, 12)], held_out=10)
    assert task.metrics["MASE"].baselines["last value"] == math.inf
    assert np.isfinite(task.metrics["MAE"].baselines["last value"])


# refused


def broken(i, step, feature, value):
    series = places()
    series[i][step, feature] = value
    return series


REFUSED = {
    "an empty list": (dict(series=[]), "series: expected at least one sequence"),
    "a single value": (dict(series=np.float32(3)), r"series: expected \[time, features\]"),
    "several axes": (dict(series=np.zeros((2, 50, 3))),
                     r"\[time, features\] or a list of such, got \[2, 50, 3\]"),
    "no steps": (dict(series=[np.zeros(50), np.zeros(0)]), r"series\[1\]: no steps"),
    "no features": (dict(series=np.zeros((50, 0))), "at least one feature, got none"),
    "text": (dict(series=np.array(["a"] * 50)), "expected numbers, got text"),
    "features": (dict(series=[np.zeros((50, 2)), np.zeros((50, 3))]),
                 r"series\[1\]: expected features of shape \[2\]"),
    "nan": (dict(series=broken(1, 5, 2, np.nan)),
            "series: nan at sequence 1, step 5, feature 2"),
    "nan held out": (dict(series=broken(2, 80, 0, np.nan)),
                     "series: nan at sequence 2, step 80, feature 0"),
    "beyond float32": (dict(series=broken(0, 3, 1, 1e39)), r"1e\+39 at sequence 0, step 3"),
    "too short": (dict(series=[np.zeros(50), np.zeros(12)]),
                  r"series\[1\]: the training part has 9 of its 12 steps; expected at "
                  r"least T \+ horizon = 7 \+ 3 = 10"),
    "too few held out": (dict(held_out=2), r"series\[0\]: 2 of its 60 steps are held out; "
                         "expected at least horizon = 3"),
    "all held out": (dict(held_out=100), r"series\[0\]: the training part has 0 of"),
    "held out, 1.0": (dict(held_out=1.0), r"held_out: expected a share in \(0, 1\)"),
    "held out, nan": (dict(held_out=math.nan), r"held_out: expected a share.*nan"),
    "held out, true": (dict(held_out=True), "held_out: expected a share.*got True"),
    "held out, 0": (dict(held_out=0), "held_out: expected a share.*got 0"),
    "a long season": (dict(season=35), r"season: 35, and the training part of series\[1\] "
                      "has 35 steps; expected fewer"),
    "season, 0": (dict(season=0), "season must be a whole number of at least 1, got 0"),
    "season, 1.5": (dict(season=1.5), "season must be a whole number of at least 1"),
    "no feature": (dict(targets=[3]), "targets: expected features from 0 to 2, got 3"),
    "a feature twice": (dict(targets=[1, 1]), r"targets: expected each once, got \[1, 1\]"),
    "no targets": (dict(targets=[]), r"targets: expected numbers of features \[O\]"),
    "a flag": (dict(targets=[True, False, True]), "targets: expected numbers of features"),
    "T": (dict(T=0), "T must be a whole number of at least 1, got 0"),
    "horizon": (dict(horizon=0), "horizon must be a whole number of at least 1"),
    "stride": (dict(stride=-1), "stride must be a whole number of at least 1, got -1"),
    "batch": (dict(batch=1000), "batch must be at most 115, the windows of the training"),
    "seed": (dict(seed=-1), "seed: expected a whole number of at least 0, got -1"),
    "objective": (dict(objective="mse"), "objective: expected a function, got str"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    options, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message) as error:
        made(**options)
    assert "\n" not in str(error.value)


# beside the rest of the library


def test_a_task_is_pickled_by_its_series():
    task = made(season=5)
    again = pickle.loads(pickle.dumps(task))
    same(again.train.read(3, 4), task.train.read(3, 4))
    assert (again.encoding, again.record) == (task.encoding, task.record)
    assert pickle.loads(pickle.dumps(task.objective)) is task.objective


def test_strict_promotion():
    task = made(walks(), season=5, standardise=True)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        _, side, _ = batch_of(task.train, 0)
        targets = jax.tree.map(jnp.asarray, side.targets.targets)
        for metric in task.metrics.values():
            assert metric.each(targets.values, targets).shape == (7, 4)
            assert not metric.each(targets.values, targets).any()


def seasonal(n=600, season=12, seed=2):
    """A season whose size drifts, on a trend that turns: no simple forecast has it."""
    rng, t = np.random.default_rng(seed), np.arange(n)
    level = np.sin(2 * np.pi * t / 150)
    season = (1 + 0.5 * np.sin(2 * np.pi * t / 90)) * np.sin(2 * np.pi * t / season)
    return 200 + 40 * level + 20 * season + rng.normal(size=n)


@pytest.mark.slow
def test_a_training_is_better_than_simple_forecasts_and_goes_on(tmp_path):
    task = tasks.windows(
        seasonal(), T=24, horizon=6, season=12, batch=32, held_out=0.25
    )
    model = models.features((cells.gru(1, 16),), task.n_out, 16)
    estimator = estimators.exact(model, task.objective)

    def run(out, updates):
        options = train.RunOptions(
            updates=updates, evaluate_every=100, checkpoint_every=100
        )
        return train.run(task, model, estimator, optax.adam(1e-2), options, out)

    whole = run(tmp_path / "whole", 400)
    run(tmp_path / "parts", 200)
    same(whole.state.params, run(tmp_path / "parts", 400).state.params)
    assert whole.best.held_out < 0.5 * min(task.baselines.values())
    found = train.evaluate(task, model, whole.best.params)
    assert found["loss"] == pytest.approx(whole.best.held_out, rel=1e-6)
    for name, metric in task.metrics.items():
        assert found[name] < 0.7 * min(metric.baselines.values())
