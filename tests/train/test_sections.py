"""Training of models that need the whole sequence: runs, loaded ones, sweeps."""

import functools

import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, layers, models, sweep, tasks, train, wholes


@functools.cache
def task():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 10, 40)
    labels = np.arange(40) % 2
    xs = [rng.normal(size=(n, 2)) + np.outer(np.arange(n) == 0, [4 * y, 0])
          for n, y in zip(lengths, labels, strict=True)]  # fmt: skip
    return xs, labels, tasks.arrays(xs, labels, batch=10)


def test_a_run_of_sections_is_trained_loaded_and_predicts(tmp_path):
    xs, labels, given = task()
    model = models.sections(wholes.ends(cells.elman(2, 8)), layers.dense(16, 2))
    exact = estimators.exact(model, given.objective)
    options = train.RunOptions(updates=40, evaluate_every=20)
    done = train.run(given, model, exact, optax.adam(2e-2), options, tmp_path)
    assert done.metrics["accuracy"] > 0.7
    run = train.load(tmp_path)
    assert run.model == model
    said = run.predict(xs)
    assert (said == labels).mean() > 0.8
    one = run.predict(xs[:1])  # what else is in a batch is not read
    np.testing.assert_array_equal(one, said[:1])
    held_out = train.evaluate(given, run.model, run.params)
    assert held_out["loss"] == pytest.approx(done.metrics["loss"], rel=1e-5)
    longer = options._replace(updates=60)
    assert (
        int(
            train.run(
                given, model, exact, optax.adam(2e-2), longer, tmp_path
            ).state.position
        )
        == 60
    )
    with pytest.raises(
        TypeError, match=r"Run\.generate: it draws one symbol after another"
    ):
        run.generate("a")
    with pytest.raises(
        TypeError, match=r"Run\.stream: it draws one symbol after another"
    ):
        next(run.stream("a"))


def test_a_sweep_of_sections(tmp_path):
    *_, given = task()
    model = models.sections(cells.elman(2, 4), wholes.mean(), layers.dense(4, 2))
    training = sweep.training(
        given,
        model,
        estimators.exact(model, given.objective),
        lambda lr: optax.adam(lr),
    )
    rates = sweep.grid(lr=[1e-3, 1e-2])
    found = sweep.run(training, rates, steps=10, lanes=2, out=tmp_path)
    rows = found.table.to_pylist()
    assert {row["lr"] for row in rows} == {1e-3, 1e-2}
    assert all(np.isfinite(row["held_out"]) for row in rows)
