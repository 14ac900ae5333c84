"""The figures that tasks have beside their loss, against NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, models, objectives, tasks, train
from bptt_jax.types import Metric, Weighted

RNG = np.random.default_rng(0)
SIGNALS = [RNG.normal(size=(n, 2)) for n in RNG.integers(3, 9, 40)]


def outputs(task, model, params):
    """`(outputs, targets, weights)` of all held-out steps that count, in NumPy."""
    found = []
    stream = task.held_out
    for i in range(stream.length):
        item = jax.tree.map(lambda a: jnp.asarray(a[0]), stream.read(i, 1))
        batch = stream.batch(item, jax.random.key(0))
        carry = model.init_carry(params, batch.inputs.shape[1:2])
        ys = np.asarray(model.fwd(params, carry, batch.inputs, batch.side)[1])
        targets, weights = batch.side.targets, np.ones(ys.shape[:2])
        if isinstance(targets, Weighted):
            targets, weights = map(np.asarray, targets)
        if batch.side.mask is not None:
            weights = weights * np.asarray(batch.side.mask)
        rows = weights != 0
        found.append((ys[rows], np.asarray(targets)[rows], weights[rows]))
    return [np.concatenate(each) for each in zip(*found, strict=True)]


def of(task):
    model = models.features((cells.elman(task.n_in, 4),), task.n_out, 4)
    params = model.init(jax.random.key(0))
    ys, targets, weights = outputs(task, model, params)
    return train.evaluate(task, model, params), ys, targets, weights


def test_accuracy_of_labels():
    labels = RNG.choice(["a", "b", "c"], 40, p=[0.6, 0.2, 0.2])
    weights = {"a": 1.0, "b": 2.0, "c": 3.0}
    task = tasks.arrays(SIGNALS, labels, batch=7, held_out=0.4, weights=weights)
    found, ys, targets, weighed = of(task)
    right = ys.argmax(-1) == targets
    assert found["accuracy"] == pytest.approx(np.average(right, weights=weighed))
    metric = task.metrics["accuracy"]
    out = np.average(targets == most_frequent(task), weights=weighed)
    assert metric.baselines == {"most frequent class": pytest.approx(out)}
    assert metric.unit == "share that is right"


def most_frequent(task) -> int:
    items = task.train.read(0, task.train.length)
    real = items.lengths > 0
    return np.bincount(items.targets[real], items.weights[real]).argmax()


def test_accuracy_of_truths():
    truths = RNG.random((40, 3)) < 0.3
    task = tasks.arrays(SIGNALS, truths, batch=7, held_out=0.4)
    found, ys, targets, _ = of(task)
    assert found["accuracy"] == pytest.approx(((ys > 0) == targets).mean())
    baseline = task.metrics["accuracy"].baselines["most frequent truth"]
    assert baseline == pytest.approx((~targets.astype(bool)).mean())


@pytest.mark.parametrize("standardise", [False, True])
def test_errors_of_numbers_are_in_the_unit_of_the_data(standardise):
    sums = np.array([[100 * a.sum(), a.mean()] for a in SIGNALS], np.float32)
    task = tasks.arrays(SIGNALS, sums, batch=7, held_out=0.4, standardise=standardise)
    found, ys, targets, _ = of(task)
    scale = task.encoding.targets
    assert (scale is not None) == standardise
    deviation = 1 if scale is None else np.array(scale.deviation)
    errors = (ys - targets) * deviation
    assert found["MAE"] == pytest.approx(abs(errors).mean(), rel=1e-5)
    assert found["RMSE"] == pytest.approx(math.sqrt((errors**2).mean()), rel=1e-5)
    baseline = task.metrics["RMSE"].baselines["mean"]
    trained = task.train.read(0, task.train.length)
    mean = trained.targets[trained.lengths > 0].mean(0)
    wrong = (targets - mean) * deviation
    assert baseline == pytest.approx(math.sqrt((wrong**2).mean()), rel=1e-5)
    assert task.metrics["MAE"].unit == "unit of the data"


def test_symbols_that_are_predicted():
    symbols = RNG.integers(0, 5, (40, 6))
    task = tasks.arrays(symbols, batch=7, held_out=0.4)
    model = models.symbols(5, 3, (cells.elman(3, 4),), 5, 4)
    found = train.evaluate(task, model, model.init(jax.random.key(0)))
    assert list(found) == ["loss", "bits per symbol", "perplexity", "accuracy"]
    assert found["bits per symbol"] == pytest.approx(found["loss"] / math.log(2))
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))


def test_bits_per_character_of_a_text_in_utf_8(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("grün über die Höhe fällt Öl, schön wär's; " * 90, encoding="utf-8")
    task = tasks.text_file(path, batch=4, T=20)
    assert list(task.metrics) == ["bits per character", "perplexity"]
    model = models.symbols(task.n_in, 3, (cells.elman(3, 4),), task.n_out, 4)
    found = train.evaluate(task, model, model.init(jax.random.key(0)), batches=2)
    bits = tasks.bits(task.held_out, [found["loss"]] * 2)
    assert found["bits per character"] == pytest.approx(bits, rel=1e-5)
    assert bits > 1.02 * found["loss"] / math.log(2)  # letters of two bytes


def test_ones_own_beside_those_of_the_task():
    labels = RNG.integers(0, 3, 40)
    both = lambda ys, labels: dict(
        hit=(ys.argmax(-1) == 1) & (labels == 1), there=labels == 1
    )
    recall = lambda mean: mean["hit"] / mean["there"]
    second = lambda ys, labels: ys[..., 1]
    own = {"recall of 1": (both, recall), "second": second}
    task = tasks.arrays(SIGNALS, labels, batch=7, held_out=0.4, metrics=own)
    found, ys, targets, _ = of(task)
    assert list(found) == ["loss", "accuracy", "recall of 1", "second"]
    right = (ys.argmax(-1) == 1)[targets == 1]
    assert found["recall of 1"] == pytest.approx(right.mean())
    assert found["second"] == pytest.approx(ys[:, 1].mean(), rel=1e-5)


def test_ones_own_of_windows_is_given_numbers():
    error = lambda ys, values: abs(ys - values).max(-1)
    wave = np.sin(np.arange(200) / 4)
    task = tasks.windows(wave, T=8, horizon=3, batch=8, metrics={"worst": error})
    found = of_windows(task)
    assert list(found) == ["loss", "MAE", "RMSE", "MASE", "worst"]
    assert found["worst"] > 0


def of_windows(task):
    model = models.features((cells.elman(1, 4),), 3, 4)
    return train.evaluate(task, model, model.init(jax.random.key(0)))


def test_an_objective_of_ones_own_has_no_metrics_by_itself():
    own = lambda ys, labels: objectives.softmax_cross_entropy(ys, labels)
    labels = RNG.integers(0, 3, 40)
    assert not tasks.arrays(SIGNALS, labels, batch=7, objective=own).metrics


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (3, TypeError, "metrics: expected a function by its name, got int"),
        (
            {"loss": abs},
            ValueError,
            "metrics: expected names other than loss, .* 'loss'",
        ),
        ({1: abs}, ValueError, "metrics: expected names other than .*, got 1"),
        ({"a": 1}, TypeError, r"metrics\['a'\]: expected a function .*, got int"),
        ({"a": (abs, 1)}, TypeError, r"metrics\['a'\]: expected a function .* tuple"),
        ({"a": Metric(1)}, TypeError, r"metrics\['a'\]: expected a function .* Metric"),
    ],
)
def test_refused(given, error, match):
    with pytest.raises(error, match=match):
        tasks.arrays(SIGNALS, RNG.integers(0, 3, 40), batch=7, metrics=given)
