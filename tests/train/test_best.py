"""The best parameters on held-out data are kept beside the last."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import optax
import pytest

from bptt_jax import train
from bptt_jax.train._fingerprint import digest
from bptt_jax.train._held_out import HeldOut
from support.training import adding, outcome

OPTIONS = train.RunOptions(
    updates=20, per_dispatch=2, evaluate_every=4, checkpoint_every=6, evaluate_batches=2,
    final_batches=5, keep=2,
)  # fmt: skip
TURN = 8


@functools.cache
def overfitted():
    """Learns for some steps and unlearns from there on."""
    rate = lambda count: jnp.where(count < TURN, 0.1, -0.3)
    return adding()._replace(optimizer=optax.sgd(rate))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, overfitted().run(out, OPTIONS)


def saved(out) -> train.Best:
    checkpoints = train.Checkpoints(out / "checkpoint")
    like = jax.eval_shape(overfitted().model.init, jax.random.key(0))
    try:
        return checkpoints.restore_best(like)
    finally:
        checkpoints.close()


def lines(out) -> list[dict]:
    return train.MetricsFile(out / "metrics.jsonl").lines()


def test_the_best_is_not_the_last(whole, tmp_path):
    out, done = whole
    held_out = {x["step"]: x["held_out"] for x in lines(out) if "held_out" in x}
    assert min(held_out, key=held_out.get) == TURN
    assert (done.best.position, int(done.state.position)) == (TURN, 20)
    assert done.best.held_out < done.held_out
    assert lines(out)[-1] == dict(
        step=20, final_held_out=done.held_out,
        best_step=TURN, best_held_out=done.best.held_out,
    )  # fmt: skip
    short = overfitted().run(tmp_path, OPTIONS._replace(updates=TURN))
    assert digest(short.state.params) == digest(done.best.params)
    assert short.held_out == done.best.held_out
    assert digest(done.best.params) != digest(done.state.params)


def test_it_is_on_disk_beside_the_last(whole):
    out, done = whole
    found = saved(out)
    assert digest(found.params) == digest(done.best.params)
    assert (found.position, found.since) == (TURN, 2)
    held_out = [x["held_out"] for x in lines(out) if x["step"] == TURN and len(x) == 2]
    assert [found.held_out] == held_out


def test_with_patience(whole, tmp_path):
    options = OPTIONS._replace(patience=1)
    for _ in range(2):  # a finished run again
        done = overfitted().run(tmp_path, options, progress=train.Progress(message=str))
        assert done.stopped_early
        assert int(done.state.position) == TURN + 4
        assert done.best.position == TURN
        assert digest(done.best.params) == digest(whole[1].best.params)


def test_where_the_last_is_the_best(tmp_path):
    """Also where nothing was evaluated before."""
    options = OPTIONS._replace(updates=3)
    done = overfitted().run(tmp_path, options)
    assert done.best.position == 3
    assert digest(done.best.params) == digest(done.state.params)
    assert done.best.held_out == done.held_out
    assert saved(tmp_path).position == 3


@pytest.mark.parametrize("dispatches", [1, 4, 5, 6, 9])
def test_stopped_and_continued(dispatches, whole, tmp_path):
    asked = itertools.count(1)
    progress = train.Progress(interrupted=lambda: next(asked) >= dispatches)
    with pytest.raises(KeyboardInterrupt):
        overfitted().run(tmp_path, OPTIONS, progress=progress)
    done = overfitted().run(tmp_path, OPTIONS)
    assert outcome(tmp_path, done.state) == outcome(whole[0], whole[1].state)
    assert done.best._replace(params=None) == whole[1].best._replace(params=None)
    assert digest(done.best.params) == digest(whole[1].best.params)


def test_a_longer_plan_goes_on_with_the_best(whole, tmp_path):
    options = OPTIONS._replace(updates=TURN + 4)
    overfitted().run(tmp_path, options)
    progress = train.Progress(message=str)
    done = overfitted().run(tmp_path, options._replace(updates=20), progress=progress)
    assert done.best.position == TURN
    assert digest(done.best.params) == digest(whole[1].best.params)


def test_an_equal_loss_is_no_better_one(tmp_path, monkeypatch):
    monkeypatch.setattr(HeldOut, "figures", lambda *_: {"loss": 1.0})
    done = overfitted().run(tmp_path, OPTIONS._replace(patience=1))
    assert (done.best.position, int(done.state.position)) == (4, 8)
    assert done.stopped_early


def test_a_loss_that_is_not_finite_is_no_best_one(tmp_path, monkeypatch):
    monkeypatch.setattr(HeldOut, "figures", lambda *_: {"loss": math.nan})
    with pytest.raises(train.NonFiniteError, match="at step 4;"):
        overfitted().run(tmp_path, OPTIONS)
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_plan_that_ends_where_it_was_stopped(tmp_path):
    asked = itertools.count(1)
    progress = train.Progress(interrupted=lambda: next(asked) >= 1)
    with pytest.raises(KeyboardInterrupt):
        overfitted().run(tmp_path, OPTIONS, progress=progress)
    progress = train.Progress(message=str)
    done = overfitted().run(tmp_path, OPTIONS._replace(updates=2), progress=progress)
    assert done.best.position == 2
