"""`sweep.trainer`: scores of a list of configurations, by a program compiled once."""

import math

import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, models, sweep, tasks
from support.compilations import compilations
from support.sweeping import descent


def listed(rates, seeds=(0,)):
    return [dict(lr=float(lr), seed=seed) for lr in rates for seed in seeds]


def test_scores_are_those_of_a_sweep(tmp_path):
    each = listed([0.3, 0.1, 0.01, 3.0, 0.001], range(2))
    scores = sweep.trainer(descent, steps=120, lanes=4, evaluate_every=20)(each)
    space = sweep.zip(lr=[c["lr"] for c in each], seed=[c["seed"] for c in each])
    found = sweep.run(
        descent, space, steps=120, lanes=4, evaluate_every=20, out=tmp_path / "s"
    )
    last = [r["loss"] for r in found.table.to_pylist() if r["step"] == 120]
    assert [None if math.isnan(a) else a for a in scores] == last
    assert sum(map(math.isnan, scores)) == 2
    by_x = sweep.trainer(descent, steps=120, lanes=4, evaluate_every=20, score="x")
    x = [r["x"] for r in found.table.to_pylist() if r["step"] == 120]
    assert [None if math.isnan(a) else a for a in by_x(each)] == x


def test_a_held_out_loss_is_the_score(tmp_path):
    task = tasks.adding(batch=2, T=6)
    model = models.features((cells.elman(2, 3),), 1, 3)
    exact = estimators.exact(model, task.objective)
    one = sweep.training(
        task, model, exact, lambda lr: optax.sgd(lr), held_out_batches=1
    )
    scores = sweep.trainer(one, steps=4, lanes=2)([dict(lr=0.1), dict(lr=0.01)])
    space = sweep.grid(lr=[0.1, 0.01])
    found = sweep.run(one, space, steps=4, lanes=2, out=tmp_path / "s")
    ends = [r for r in found.table.to_pylist() if r["step"] == 4]
    assert scores == [r["held_out"] for r in ends]


def test_it_is_compiled_once_for_any_number():
    scores = sweep.trainer(descent, steps=4, lanes=4)
    with compilations() as made:
        scores(listed([0.1, 0.2]))
    assert made
    with compilations() as more:
        nine = scores(listed(np.linspace(0.01, 0.3, 9)))
        one = scores([dict(lr=1, seed=3)])  # a whole number among real ones
        assert scores([]) == []
    assert not more
    assert len(nine) == 9
    assert one == scores(listed([1.0], [3]))


def test_what_does_not_fit_is_named():
    scores = sweep.trainer(descent, steps=4, lanes=2)
    scores([dict(lr=0.1, seed=0)])
    for wrong, said in (
        ([dict(lr=0.1)], r"configurations\[0\]: expected lr, seed, got lr"),
        ([dict(lr=math.inf, seed=0)], "lr: expected finite numbers"),
        ([dict(lr=0.1, seed=0.5)], "seed: expected whole numbers"),
    ):
        with pytest.raises(ValueError, match=said):
            scores(wrong)
    with pytest.raises(TypeError, match="lr: expected numbers, got 'high'"):
        scores([dict(lr="high", seed=0)])
    with pytest.raises(ValueError, match="lanes must be a whole number"):
        sweep.trainer(descent, steps=4, lanes=0)
    with pytest.raises(ValueError, match="score: expected the name of a metric"):
        unknown = sweep.trainer(descent, steps=4, score="accuracy")
        unknown([dict(lr=0.1, seed=0)])


@pytest.mark.slow
def test_optuna_asks_and_is_told():
    """Eight at a time; what it finds is near the best rate of the problem, 0.5."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scores = sweep.trainer(descent, steps=6, lanes=8, evaluate_every=1)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    for _ in range(5):
        trials = [study.ask() for _ in range(8)]
        chosen = [dict(lr=t.suggest_float("lr", 1e-3, 10.0, log=True)) for t in trials]
        for trial, score in zip(trials, scores(chosen), strict=True):
            if math.isnan(score):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, score)
    assert len(study.trials) == 40
    assert 0.2 < study.best_params["lr"] < 0.8
    (again,) = scores([study.best_params])
    assert again == study.best_value
