"""What stops a run, and how often it is compiled."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import estimators, train
from support.compilations import compilations
from support.training import adding, emptied, text

OPTIONS = train.RunOptions(
    updates=12, per_dispatch=3, checkpoint_every=1, evaluate_batches=2
)
BAD = 8  # counted from 1; in the middle of the third dispatch


def nan_at(stream, item):
    """The stream with NaN in the inputs of one batch."""

    def batch(position, key):
        made = stream.batch(position, key)
        inputs = jnp.where(position == item, jnp.nan, made.inputs)
        return made._replace(inputs=inputs)

    return stream._replace(batch=batch)


def bad_data():
    job = adding()
    return job._replace(task=job.task._replace(train=nan_at(job.task.train, BAD - 1)))


def bad_objective():
    """Its value is finite, its gradient is not."""
    job = bad_data()

    def objective(ys, targets):
        clean = jnp.nan_to_num(ys)
        return jnp.sum((clean - targets) ** 2 + jnp.sqrt(0 * ys), -1)

    task = adding().task._replace(objective=objective)
    return job._replace(task=task, estimator=estimators.exact(job.model, objective))


def bad_rate():
    """Loss and gradient are finite, the update is not."""
    rate = lambda step: jnp.where(step == BAD - 1, jnp.inf, 1e-2)
    return adding()._replace(optimizer=optax.sgd(rate))


@pytest.mark.parametrize(
    ("make", "step"),
    [
        (bad_data, BAD),
        pytest.param(bad_objective, 1, marks=pytest.mark.slow),
        pytest.param(bad_rate, BAD, marks=pytest.mark.slow),
    ],
)
def test_what_is_not_finite_stops_the_run(make, step, tmp_path):
    job = make()
    for _ in range(2):  # the same again, from the last good checkpoint
        with pytest.raises(train.NonFiniteError, match=f"at step {step};") as caught:
            job.run(tmp_path, OPTIONS)
        assert caught.value.step == step
    good = (step - 1) // OPTIONS.per_dispatch * OPTIONS.per_dispatch
    lines = train.MetricsFile(tmp_path / "metrics.jsonl").lines()
    assert [line["step"] for line in lines if "loss" in line] == list(
        range(1, good + 1)
    )
    checkpoints = train.Checkpoints(tmp_path / "checkpoint")
    kept = checkpoints.restore(job.state())
    checkpoints.close()
    if not good:
        assert kept is None
        return
    assert int(kept.position) == good
    assert int(kept.bad) == -1
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(kept.params))


def test_a_bad_step_changes_nothing():
    job = bad_rate()
    advance = train.many_steps(job.estimator, job.optimizer, job.task.train.batch)
    state = job.state()
    for position in range(BAD - 1):
        state, _ = advance(state, job.task.train.read(position, 1))
    before = after = jax.tree.map(jnp.copy, state)
    for position in range(BAD - 1, BAD + 1):
        after, record = advance(
            jax.tree.map(jnp.copy, after), job.task.train.read(position, 1)
        )
        assert not np.isfinite(np.asarray(record["update_norm"])).any()
    assert int(after.bad) == int(before.position) == BAD - 1
    same = jax.tree.map(
        lambda a, b: bool((a == b).all()), after._replace(bad=before.bad), before
    )
    assert all(jax.tree.leaves(same))


def test_good_steps_after_a_bad_one_change_nothing():
    job = adding()
    job = job._replace(task=job.task._replace(train=nan_at(job.task.train, 1)))
    advance = train.many_steps(job.estimator, job.optimizer, job.task.train.batch)
    before, _ = advance(job.state(), job.task.train.read(0, 1))
    after, losses = jax.tree.map(jnp.copy, before), []
    for position in (1, 2, 3):
        after, record = advance(after, job.task.train.read(position, 1))
        losses.append(float(record["loss"][0]))
    assert np.isfinite(losses).tolist() == [False, True, True]
    assert int(after.bad) == 1
    chex.assert_trees_all_equal(after._replace(bad=before.bad), before)


@pytest.mark.slow
def test_a_held_out_loss_that_is_not_finite_stops_the_run(tmp_path):
    job = adding()
    task = job.task._replace(held_out=nan_at(job.task.held_out, 1))
    options = OPTIONS._replace(evaluate_every=6)
    with pytest.raises(train.NonFiniteError, match="at step 6;"):
        job._replace(task=task).run(tmp_path, options)
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_many_dispatches_compile_once(tmp_path):
    """From the second on nothing is compiled, but for the shorter one at the end."""
    job, counts = text(), []
    options = OPTIONS._replace(
        updates=81, per_dispatch=2, checkpoint_every=1000, evaluate_every=1000
    )
    jax.clear_caches()

    with compilations() as found:

        def tell(position, losses):
            counts.append(len(found))

        job.run(tmp_path, options, progress=train.Progress(updates=tell))
    assert len(counts) == 41
    # a dispatch is told when the next one has begun
    assert 0 < counts[1] == counts[38]
    assert counts[39] == counts[38] + 1


@pytest.mark.slow
def test_each_evaluation_is_the_same_batches(tmp_path):
    job = adding()._replace(optimizer=optax.sgd(0.0))
    options = OPTIONS._replace(evaluate_every=3)
    job.run(tmp_path, options)
    lines = train.MetricsFile(tmp_path / "metrics.jsonl").lines()
    held_out = [line["held_out"] for line in lines if "held_out" in line]
    assert len(held_out) == 3
    assert len(set(held_out)) == 1


@pytest.mark.slow
def test_held_out_loss_is_the_mean_over_steps(tmp_path):
    """Of all held-out windows, the carry handed on, nothing dropped out."""
    job = text()
    done = job.run(tmp_path, OPTIONS._replace(updates=3))
    stream, total = job.task.held_out, 0.0
    carry = job.model.init_carry(done.state.params, (3,))
    loss = estimators.total_loss(job.model, job.task.objective)
    items = stream.read(0, stream.length)
    for i in range(stream.length):
        item = jax.tree.map(lambda a, i=i: jnp.asarray(a[i]), items)
        batch = stream.batch(item, jax.random.key(0))
        carry, losses, steps = loss(done.state.params, carry, batch)
        total += float(losses) / float(steps)
    np.testing.assert_allclose(done.held_out, total / stream.length, rtol=1e-5)


def test_what_is_told(tmp_path):
    job, told = text(), []
    progress = train.Progress(
        updates=lambda position, losses: told.append(("steps", position, len(losses))),
        evaluated=lambda position, loss: told.append(("evaluated", position, loss)),
    )
    options = OPTIONS._replace(updates=7, per_dispatch=2, evaluate_every=3)
    job.run(tmp_path, options, progress=progress)
    steps = [(position, n) for kind, position, n in told if kind == "steps"]
    assert steps == [(2, 2), (4, 2), (6, 2), (7, 1)]
    lines = train.MetricsFile(tmp_path / "metrics.jsonl").lines()
    evaluated = [t[1:] for t in told if t[0] == "evaluated"]
    assert evaluated == [(x["step"], x["held_out"]) for x in lines if "held_out" in x]
    assert [position for position, _ in evaluated] == [4, 6]  # after steps 3 and 6


def test_a_batch_without_a_real_step_does_not_stop_a_run(tmp_path):
    job, told = adding(), []
    job = job._replace(task=emptied(job.task, [3, 4], "mask"))
    options = OPTIONS._replace(updates=6, per_dispatch=2, evaluate_every=2)
    tell = lambda position, losses: told.extend(losses.tolist())
    done = job.run(tmp_path, options, progress=train.Progress(updates=tell))
    assert int(done.state.position) == 6
    lines = train.MetricsFile(tmp_path / "metrics.jsonl").lines()
    assert [x for x in lines if "real" in x] == [
        {"step": 4, "real": False},
        {"step": 5, "real": False},
    ]
    assert [x["step"] for x in lines if "loss" in x] == [1, 2, 3, 6]
    assert [x["loss"] for x in lines if "loss" in x] == [
        a for a in told if not np.isnan(a)
    ]
    assert np.isnan(told).tolist() == [False] * 3 + [True] * 2 + [False]


def test_held_out_data_without_a_real_step_is_named(tmp_path):
    job = adding()
    held_out = emptied(job.task._replace(train=job.task.held_out), range(10), "mask")
    job = job._replace(task=job.task._replace(held_out=held_out.train))
    with pytest.raises(ValueError, match="no step of its first 2 held-out batches"):
        job.run(tmp_path, OPTIONS._replace(updates=2))
