"""What "best" means: for patience, for the parameters that are kept, and in a sweep."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, models, sweep, tasks, train
from bptt_jax.types import Metric
from support.training import adding, listing

OPTIONS = train.RunOptions(
    updates=12, per_dispatch=2, evaluate_every=2, checkpoint_every=4, evaluate_batches=2,
    final_batches=2,
)  # fmt: skip


@functools.cache
def growing():
    """A job whose outputs grow, so that its figure does, whatever its loss does."""
    job = adding()
    size = Metric(lambda ys, targets: abs(ys).sum(-1))
    never = Metric(lambda ys, targets: jnp.full(ys.shape[:-1], jnp.inf))
    task = job.task._replace(metrics={"size": size, "never": never})
    return job._replace(task=task, optimizer=optax.sgd(-0.2))


def evaluations(out, name):
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return {x["step"]: x["metrics"][name] for x in lines if "held_out" in x}


def test_the_greatest_is_the_best(tmp_path):
    done = growing().run(tmp_path, OPTIONS, score="size", maximise=True)
    sizes = evaluations(tmp_path, "size")
    assert sorted(sizes.values()) == list(sizes.values())
    assert done.best.position == 12
    assert done.best.score == done.metrics["size"] > sizes[10]
    usual = growing().run(tmp_path / "least", OPTIONS, score="size")
    assert usual.best.position == 2
    assert usual.best.score == pytest.approx(sizes[2])
    assert usual.best.held_out == usual.metrics["loss"]


def test_patience_is_of_the_score(tmp_path):
    options = OPTIONS._replace(patience=2)
    done = growing().run(tmp_path, options, score="size")
    assert done.stopped_early
    assert int(done.state.position) == 6
    assert not growing().run(tmp_path / "b", options, score="size", maximise=True)[2]


def test_it_is_recorded_and_another_one_is_another_run(tmp_path):
    growing().run(tmp_path, OPTIONS._replace(updates=2), score="size", maximise=True)
    made = json.loads((tmp_path / "run.json").read_text())["made"]
    assert made["score"] == "highest size"
    before = listing(tmp_path)
    with pytest.raises(
        ValueError, match="what differs: score highest size .*lowest loss"
    ):
        growing().run(tmp_path, OPTIONS)
    assert listing(tmp_path) == before
    done = growing().run(tmp_path, OPTIONS, score="size", maximise=True)
    assert int(done.state.position) == 12


def test_a_run_of_before_there_were_scores_goes_on(tmp_path):
    growing().run(tmp_path, OPTIONS._replace(updates=4))
    path = tmp_path / "run.json"
    record = json.loads(path.read_text())
    del record["made"]["score"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="score lowest loss"):
        growing().run(tmp_path, OPTIONS, score="size")
    done = growing().run(tmp_path, OPTIONS)
    assert int(done.state.position) == 12


def test_a_score_that_is_not_finite_is_no_best_one(tmp_path):
    done = growing().run(tmp_path, OPTIONS._replace(patience=1), score="never")
    assert (done.best.position, int(done.state.position)) == (2, 4)
    assert done.best.score is None


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        (
            dict(score="sise"),
            ValueError,
            r"name of a metric \(never, size\), got 'sise'",
        ),
        (dict(score=1), TypeError, "score: expected the name of a metric, got int"),
        (dict(maximise=True), ValueError, "maximise: .*; expected score= beside it"),
        (dict(score="size", maximise=1), TypeError, "maximise: expected True or False"),
    ],
)
def test_refused(said, error, match, tmp_path):
    with pytest.raises(error, match=match):
        growing().run(tmp_path / "run", OPTIONS, **said)
    assert not list(tmp_path.iterdir())


@functools.cache
def signs():
    signals = np.random.default_rng(0).normal(size=(40, 5, 2))
    task = tasks.arrays(signals, signals.sum((1, 2)) > 0, batch=8, held_out=0.4)
    model = models.features((cells.elman(2, 4),), task.n_out, 4)
    estimator = estimators.exact(model, task.objective)
    return sweep.training(task, model, estimator, lambda lr: optax.adam(lr))


def swept(out, **more):
    space = sweep.grid(lr=[1e-4, 0.1, 0.01], seed=range(2))
    return sweep.run(
        signs(), space, steps=16, out=out, evaluate_every=8, lanes=2, keep=6, **more
    )


def test_of_a_sweep(tmp_path):
    said = dict(score="accuracy", maximise=True)
    result = swept(tmp_path, **said, halving=None)
    last = {r["config"]: r["accuracy"] for r in result.table.to_pylist()}
    scores = [best.score for best in result.best]
    assert scores == sorted(last.values(), reverse=True)
    assert [last[best.config] for best in result.best] == scores
    assert sweep.load(tmp_path).best == result.best
    assert json.loads((tmp_path / "sweep.json").read_text())["sweep"]["score"] == (
        "highest accuracy"
    )
    with pytest.raises(ValueError, match=r"holds another sweep \(score differ\)"):
        swept(tmp_path)


def test_of_a_sweep_refused(tmp_path):
    out = tmp_path / "sweep"
    known = "accuracy, grad_norm, held_out, loss, update_norm"
    expected = known.replace("held_out, ", "")
    with pytest.raises(ValueError, match=rf"\({expected}\), got 'acuracy'"):
        swept(out, score="acuracy")
    assert not out.exists()
