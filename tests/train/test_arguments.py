"""What `run` and a sweep are given is named where it is something else; no folder is made."""

import jax
import pytest

from bptt_jax import cells, estimators, layers, models, sweep, train
from support.training import adding

JOB = adding()
OPTIONS = train.RunOptions(updates=2)
TWO_AXES = jax.make_mesh((1, 1), ("data", "model"))
REFUSED = {
    "task": (dict(task="adding"), "task: expected a record Task, got str"),
    "model": (dict(model=3), "model: expected a Cell or a Layer, got a int"),
    "both directions": (
        dict(model=models.bidirectional(cells.gru(2, 3), cells.gru(2, 3))),
        "model: .*whole sequence",
    ),
    "estimator": (
        dict(estimator=JOB.model), "estimator: expected a record Estimator, got Layer"
    ),
    "a factory": (
        dict(estimator=estimators.exact),
        "estimator: expected a record Estimator, got exact",
    ),
    "optimizer": (dict(optimizer="adam"), "optimizer: expected an optax optimizer, .*str"),
    "options": (dict(options=20), "options: expected a record RunOptions, got int"),
    "seed": (dict(seed="a"), "seed: expected a whole number, got 'a'"),
    "no seed": (dict(seed=1.5), "seed: expected a whole number, got 1.5"),
    "mesh": (dict(mesh="data"), "mesh: expected a jax.sharding.Mesh of one axis, got str"),
    "two axes": (dict(mesh=TWO_AXES), r"mesh: expected one axis, got \('data', 'model'\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_named(name, tmp_path):
    changed, message = REFUSED[name]
    given = JOB._asdict() | dict(options=OPTIONS, out=tmp_path / "run") | changed
    with pytest.raises((TypeError, ValueError), match=message):
        train.run(**given)
    assert not list(tmp_path.iterdir())


def test_a_sweep_names_what_does_not_fit(tmp_path):
    task, model, estimator, optimizer = JOB

    def of(task=task, model=model, estimator=estimator, optimizer=lambda lr: optimizer):
        return sweep.training(task, model, estimator, optimizer)

    for changed, message in (
        (dict(task="adding"), "task: expected a record Task, got str"),
        (dict(model=3), "model: expected a Cell or a Layer"),
        (dict(estimator=estimators.exact), "estimator: expected a record Estimator"),
        (dict(optimizer=optimizer), "optimizer: expected a function, got a Gradient"),
    ):
        with pytest.raises(TypeError, match=message):
            of(**changed)
    wrong = dict(lr=[0.1])
    with pytest.raises(TypeError, match="space: expected a record Space, got dict"):
        sweep.run(of(), wrong, steps=2, out=tmp_path / "s")
    for out, mesh, message in (
        (5, None, "out: expected a path of a folder, got int"),
        (tmp_path / "s", "configs", "mesh: expected a jax.sharding.Mesh of one axis"),
    ):
        with pytest.raises(TypeError, match=message):
            sweep.run(of(), sweep.grid(lr=[0.1]), steps=2, out=out, mesh=mesh)
    assert not list(tmp_path.iterdir())


def test_an_evaluation_names_its_task():
    with pytest.raises(TypeError, match="task: expected a record Task, got Layer"):
        train.evaluate(layers.dense(2, 1), JOB.task, {})
