"""What made a run is known: only the same goes on with what lies in a folder."""

import functools
import json
import os
import pathlib
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import Primitive

from bptt_jax import cells, estimators, models, tasks, train
from bptt_jax.train import _record
from bptt_jax.train._fingerprint import digest, fingerprint
from support.training import HIDDEN, adding, listing, records, start

OPTIONS = train.RunOptions(
    updates=4, per_dispatch=2, evaluate_every=2, evaluate_batches=2
)


def of_model(model, **options):
    """`adding` with another model."""
    job = adding()
    return job._replace(
        model=model, estimator=estimators.exact(model, job.task.objective)
    )


@functools.cache
def cell(n=HIDDEN, **options):
    return cells.gru(2, n, **options)


def scaled(factor):
    """A model whose outputs are multiplied by an array that its functions close over."""
    model = adding().model
    by = jnp.full(1, factor)

    def fwd(params, carry, xs, side):
        carry, ys, residuals = model.fwd(params, carry, xs, side)
        return carry, ys * by, residuals

    def bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys):
        return model.bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys * by)

    return model._replace(fwd=fwd, bwd=bwd)


def pretrained(seed):
    """A model whose initial parameters are given."""
    model = adding().model
    params = model.init(jax.random.key(seed))
    return model._replace(init=lambda key: params)


def backward(factor):
    """A model whose backward alone is another."""
    model = adding().model

    def bwd(*arguments):
        d_params, *others = model.bwd(*arguments)
        return jax.tree.map(lambda a: factor * a, d_params), *others

    return model._replace(bwd=bwd)


def weighted(factor):
    job = adding()
    by = np.full(3, factor, "f")  # a constant that the traced program holds

    def grad(params, state, batch, key):
        found = job.estimator.grad(params, state, batch, key)
        return found._replace(grads=jax.tree.map(lambda a: a * by[0], found.grads))

    return job._replace(estimator=job.estimator._replace(grad=grad))


def objective(ys, targets):
    return jnp.abs(ys - targets).sum(-1)


def of_objective():
    job = adding()
    task = job.task._replace(objective=objective)
    return job._replace(task=task, estimator=estimators.exact(job.model, objective))


@functools.cache
def rated(rate):
    clip = optax.clip_by_global_norm(1.0)
    return adding()._replace(optimizer=optax.chain(clip, optax.rmsprop(rate)))


OTHERS = {
    "rate": (lambda: rated(1.000001e-2), {}, "the optimizer;"),
    "rate as a schedule": (
        lambda: rated(optax.constant_schedule(2e-2)), {}, "the optimizer",
    ),
    "rate in the state": (
        lambda: adding()._replace(optimizer=optax.inject_hyperparams(optax.sgd)(0.1)),
        {}, "the optimizer;",
    ),
    "seed": (adding, dict(seed=1), "seed 0 (now 1);"),
    "plan": (
        adding, dict(options=OPTIONS._replace(patience=3, keep=1)),
        "options.patience None (now 3), options.keep 3 (now 1);",
    ),
    "task": (
        lambda: adding()._replace(task=tasks.adding(batch=3, T=8)), {},
        "what differs: task.T 6 (now 8);",
    ),
    "batch": (
        lambda: adding()._replace(task=tasks.adding(batch=4, T=6)), {},
        "what differs: the task's data or objective;",
    ),
    "batch and width": (
        lambda: of_model(models.features((cell(4),), 1, 4))._replace(
            task=tasks.adding(batch=4, T=6)
        ),
        {},
        "the task's data or objective, the model, params[0]['b'] float32[24]",
    ),
    "objective and model": (
        lambda: of_model(scaled(1.5))._replace(task=of_objective().task), {},
        "the task's data or objective, the model;",
    ),
    "objective": (of_objective, {}, "the task's data or objective;"),
    "width": (
        lambda: of_model(models.features((cell(4),), 1, 4)), {},
        "the model, params[0]['b'] float32[24] (now float32[12])",
    ),
    "closed-over array": (lambda: of_model(scaled(1.5)), {}, "the model;"),
    "initial parameters": (
        lambda: of_model(pretrained(5)), {}, "the initial parameters;",
    ),
    "backward": (
        lambda: of_model(backward(0.5)), {},
        "the estimator or the model's backward;",
    ),
    "estimator": (
        lambda: weighted(2.0), {}, "the estimator or the model's backward;",
    ),
    "model and seed": (
        lambda: of_model(scaled(1.5)), dict(seed=3),
        "seed 0 (now 3), the model;",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "run"
    return out, adding().run(out, OPTIONS)


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused_and_nothing_is_changed(name, made):
    job, more, differs = OTHERS[name]
    before = listing(made[0])
    with pytest.raises(ValueError) as caught:
        job().run(made[0], **{"options": OPTIONS} | more)
    said = str(caught.value)
    assert f"{made[0]} holds another run; what differs: " in said
    assert differs in said
    assert "nothing was changed; choose another folder (out), or overwrite=True" in said
    assert "damaged" not in said
    assert listing(made[0]) == before


def test_a_run_in_another_width_of_numbers_is_another(made, tmp_path):
    out = pathlib.Path(shutil.copytree(made[0], tmp_path / "run"))
    record = json.loads((out / _record.FILE).read_text())["made"]
    assert not record["options"]["jax_enable_x64"]
    wide = record["options"] | dict(jax_enable_x64=True)
    edited(out, made=record | dict(options=wide))
    with pytest.raises(ValueError, match=r"jax_enable_x64 True \(now False\)"):
        adding().run(out, OPTIONS)


def test_where_something_lies_in_memory_is_no_part_of_a_program():
    same = Primitive("same")
    same.def_abstract_eval(lambda a, how: a)
    here, there = object(), object()
    assert str(here) != str(there)
    one, other = (
        fingerprint(lambda x, how=how: same.bind(x, how=how), jnp.ones(3))
        for how in (here, there)
    )
    assert one == other


def test_the_text_of_a_program_does_not_show_its_constants():
    def of(a):
        return lambda x: x * a

    one, other = jnp.zeros(3), jnp.ones(3)
    x = jnp.ones(3)
    assert str(jax.make_jaxpr(of(one))(x)) == str(jax.make_jaxpr(of(other))(x))
    assert fingerprint(of(one), x) != fingerprint(of(other), x)
    assert fingerprint(of(one), x) == fingerprint(of(jnp.zeros(3)), 2 * x)
    near = np.nextafter(np.float32(1), np.float32(2))
    assert fingerprint(of(1.0), x) != fingerprint(of(near), x)
    assert fingerprint(jax.jit(of(one)), x) != fingerprint(jax.jit(of(other)), x)


@pytest.mark.slow
def test_another_process_finds_the_same(monkeypatch):
    """Whatever its order of sets, and wherever its functions lie.

    That it goes on with a run of another one is in `test_kill.py`.
    """
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    process = start("support.training", "records")
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert json.loads(said) == records()


def test_overwrite_moves_the_other_run_aside(made, tmp_path):
    out = pathlib.Path(shutil.copytree(made[0], tmp_path / "run"))
    (out / "mine.txt").write_text("mine")
    before, said = listing(made[0]), []
    progress = train.Progress(message=said.append)
    job = rated(2e-2)
    done = job.run(out, OPTIONS, overwrite=True, progress=progress)
    assert len(said) == 1
    assert said[0].endswith(f"the optimizer; it was moved to {out / 'before-1'}")
    assert listing(out / "before-1") == before
    assert (out / "mine.txt").read_text() == "mine"
    fresh = job.run(tmp_path / "fresh", OPTIONS)
    assert digest(done.state) == digest(fresh.state) != digest(made[1].state)
    # the same once more goes on with it
    again = job.run(out, OPTIONS, overwrite=True, progress=progress)
    assert "finished already" in said[-1]
    assert digest(again.state) == digest(done.state)
    assert not (out / "before-2").exists()


def test_a_finished_run_says_so(made):
    said = []
    adding().run(made[0], OPTIONS, progress=train.Progress(message=said.append))
    assert said == [f"finished already: {made[0]} has all 4 steps; nothing is trained"]
    for _ in range(2):  # a cell of a notebook that is run again
        with pytest.warns(UserWarning, match="finished already: ") as caught:
            train.run(*adding(), OPTIONS, made[0])
        assert [w.filename for w in caught] == [__file__]


def test_a_run_that_is_not_finished_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adding().run(tmp_path, OPTIONS)


def edited(out, **changes) -> None:
    path = out / _record.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_after_another_version_programs_are_not_compared(made, tmp_path):
    out = pathlib.Path(shutil.copytree(made[0], tmp_path / "run"))
    record = json.loads((out / _record.FILE).read_text())
    edited(
        out,
        versions=record["versions"] | {"jax": "0.1.0"},
        program=dict.fromkeys(record["program"], "of another version")
        | dict(shapes={}),
    )
    with pytest.raises(ValueError, match=r"what differs: seed 0 \(now 1\);"):
        adding().run(out, OPTIONS, seed=1)
    said = []
    done = adding().run(out, OPTIONS, progress=train.Progress(message=said.append))
    assert digest(done.state) == digest(made[1].state)
    assert said[0] == (
        f"from step 4 on: jax 0.1.0 (now {jax.__version__}); whether model, estimator, "
        "optimizer, initial parameters and objective are those of before cannot be "
        "compared"
    )
    # from here on they are
    found = json.loads((out / _record.FILE).read_text())
    assert found["program"] == record["program"]
    assert found["earlier"][0]["versions"]["jax"] == "0.1.0"
    with pytest.raises(ValueError, match="what differs: the optimizer;"):
        rated(2e-2).run(out, OPTIONS)


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (
            lambda: of_model(models.features((cell(4),), 1, 4)),
            "params[0]['b'] float32[24] (now float32[12])",
        ),
        (
            lambda: adding()._replace(optimizer=optax.adam(1e-2)),
            "rest['opt_state']",
        ),
    ],
)
def test_another_structure_is_no_damage(other, differs, made, tmp_path):
    """Of a run of another version, whose programs are not compared."""
    out = pathlib.Path(shutil.copytree(made[0], tmp_path / "run"))
    edited(out, versions={"jax": "0.1.0"})
    before = listing(out)
    with pytest.raises(ValueError) as caught:
        other().run(out, OPTIONS)
    said = str(caught.value)
    assert "is sound, and of another model, optimizer or estimator: " in said
    assert differs in said
    assert "damaged" not in said
    assert listing(out) == before


@functools.cache
def scheduled(steps):
    return rated(optax.cosine_decay_schedule(1e-2, steps))


def test_more_steps_with_a_schedule_over_all_of_them(tmp_path):
    short = scheduled(4).run(tmp_path, OPTIONS)
    longer, said = OPTIONS._replace(updates=8), []
    progress = train.Progress(message=said.append)
    before = listing(tmp_path)
    with pytest.raises(ValueError, match="the optimizer; .*reschedule=True"):
        scheduled(8).run(tmp_path, longer)
    assert listing(tmp_path) == before
    done = scheduled(8).run(tmp_path, longer, reschedule=True, progress=progress)
    assert int(done.state.position) == 8
    assert digest(done.state.params) != digest(short.state.params)
    assert said[0].startswith("from step 4 on: another optimizer, whose schedule may")
    assert said[1] == "from step 4 on: 8 steps in all, before it were 4"
    found = json.loads((tmp_path / _record.FILE).read_text())
    assert found["steps"] == 8
    assert [(e["steps"], e["until"]) for e in found["earlier"]] == [(4, 4)]
    # the same again: nothing to reschedule, and no other optimizer without more steps
    scheduled(8).run(tmp_path, longer, progress=progress)
    with pytest.raises(ValueError, match="what differs: the optimizer;"):
        scheduled(9).run(tmp_path, longer, reschedule=True)


def test_fewer_steps_than_there_are(made):
    before = listing(made[0])
    with pytest.raises(
        ValueError, match="holds 4 steps of this run, more than the 2 asked for;"
    ):
        adding().run(made[0], OPTIONS._replace(updates=2))
    assert listing(made[0]) == before


@pytest.mark.parametrize("damage", ["gone", "cut", "another"])
def test_without_a_record_it_is_not_known_what_a_run_is(damage, made, tmp_path):
    out = pathlib.Path(shutil.copytree(made[0], tmp_path / "run"))
    path = out / _record.FILE
    if damage == "gone":
        path.unlink()
    else:
        path.write_text("{}" if damage == "another" else path.read_text()[:40])
    before = listing(out)
    with pytest.raises(ValueError, match=r"run\.json.*nothing was changed"):
        adding().run(out, OPTIONS)
    assert listing(out) == before
    with pytest.warns(UserWarning, match="it was moved to"):
        done = adding().run(out, OPTIONS, overwrite=True)
    assert digest(done.state) == digest(made[1].state)
    assert listing(out / "before-1") == before


def test_lines_without_a_run_are_not_taken_away(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match="holds a run without run.json"):
        adding().run(tmp_path, OPTIONS)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_cell_is_a_model(tmp_path):
    done = of_model(cells.elman(2, 1)).run(tmp_path, OPTIONS)
    assert int(done.state.position) == 4


def test_out_may_be_a_text(tmp_path):
    done = adding().run(os.fspath(tmp_path / "run"), OPTIONS)
    assert int(done.state.position) == 4
    assert (tmp_path / "run" / "metrics.jsonl").exists()
    with pytest.raises(TypeError, match="out: expected a path of a folder, got int"):
        adding().run(3, OPTIONS)
