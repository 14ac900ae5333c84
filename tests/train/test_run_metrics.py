"""The figures of a run: in its file, in what is told and in what is returned."""

import functools
import json

import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, models, sweep, tasks, train
from bptt_jax.types import Metric
from support.training import Job, adding

OPTIONS = train.RunOptions(
    updates=6, per_dispatch=2, evaluate_every=2, checkpoint_every=4, evaluate_batches=2,
    final_batches=3,
)  # fmt: skip


@functools.cache
def with_metrics() -> Job:
    square = lambda ys, targets: ((ys - targets) ** 2).sum(-1)
    metrics = {
        "RMSE": Metric(square, lambda mean: mean**0.5),
        "never": Metric(square, lambda mean: float("inf")),
    }
    job = adding()
    return job._replace(task=job.task._replace(metrics=metrics))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out, told = tmp_path_factory.mktemp("metrics"), []
    tell = train.Progress(measured=lambda at, figures: told.append((at, figures)))
    return out, with_metrics().run(out, OPTIONS, progress=tell), told


def lines(out) -> list[dict]:
    return [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]


def test_each_evaluation_has_them(whole):
    out, _, told = whole
    found = [x for x in lines(out) if "held_out" in x]
    assert [x["step"] for x in found] == [2, 4]
    assert [at for at, _ in told] == [2, 4, 6]
    for line, (at, figures) in zip(found, told[:-1], strict=True):
        assert list(line) == ["step", "held_out", "metrics"]
        assert line["metrics"]["RMSE"] == pytest.approx(line["held_out"] ** 0.5)
        assert line["metrics"]["never"] is None  # JSON has no infinity
        assert (at, figures["loss"]) == (line["step"], line["held_out"])
        assert figures["RMSE"] == line["metrics"]["RMSE"]


def test_the_last_one_has_them(whole):
    out, run, _ = whole
    line = lines(out)[-1]
    assert line["final_metrics"]["RMSE"] == pytest.approx(line["final_held_out"] ** 0.5)
    assert line["best_metrics"]["RMSE"] == run.metrics["RMSE"]
    assert run.metrics["loss"] == run.best.held_out
    found = train.evaluate(
        with_metrics().task, adding().model, run.best.params, batches=3
    )
    assert run.metrics["RMSE"] == pytest.approx(found["RMSE"], rel=1e-6)


def test_losses_are_those_of_a_run_without(whole, tmp_path):
    out, run, _ = whole
    adding().run(tmp_path, OPTIONS)
    of = lambda out: [x["loss"] for x in lines(out) if "loss" in x]
    assert of(out) == of(tmp_path)
    held_out = [
        [x["held_out"] for x in lines(o) if "held_out" in x] for o in (out, tmp_path)
    ]
    np.testing.assert_allclose(*held_out, rtol=1e-6)


def test_a_run_begun_without_goes_on_with_them(whole, tmp_path):
    adding().run(tmp_path, OPTIONS._replace(updates=4))
    done = with_metrics().run(tmp_path, OPTIONS)
    assert list(done.metrics) == ["loss", "RMSE", "never"]


def test_a_sweep_has_them_in_its_table(tmp_path):
    signals = np.random.default_rng(0).normal(size=(40, 5, 2))
    task = tasks.arrays(signals, signals.sum((1, 2)) > 0, batch=8, held_out=0.4)
    model = models.features((cells.elman(2, 4),), task.n_out, 4)
    estimator = estimators.exact(model, task.objective)
    space = sweep.grid(lr=[1e-3, 1e-2])
    one = sweep.training(task, model, estimator, lambda lr: optax.adam(lr))
    found = sweep.run(
        one, space, steps=4, out=tmp_path, evaluate_every=4, lanes=1
    ).table.to_pylist()
    assert [set(row) & {"accuracy", "held_out"} for row in found] == 2 * [
        {"accuracy", "held_out"}
    ]
    optimizer = optax.adam(1e-2)
    options = OPTIONS._replace(updates=4, evaluate_batches=4, final_batches=4)
    run = train.run(task, model, estimator, optimizer, options, tmp_path / "run")
    assert found[1]["accuracy"] == pytest.approx(run.metrics["accuracy"])
