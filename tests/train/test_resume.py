"""A run that was stopped and continued is one that was not, bit for bit."""

import functools
import itertools
import pathlib
import shutil

import pytest

from bptt_jax import train
from support import tiers
from support.training import JOBS, every_job, listing, outcome

OPTIONS = train.RunOptions(
    updates=9, per_dispatch=2, evaluate_every=3, checkpoint_every=4, evaluate_batches=2
)
DISPATCHES = 5


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """`(name of job) -> outcome` of a run that nothing has stopped."""

    @functools.cache
    def made(name):
        out = tmp_path_factory.mktemp("whole")
        return outcome(out, JOBS[name]().run(out, OPTIONS).state)

    return made


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped after three dispatches, to be copied."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        JOBS["text, stream"]().run(out, OPTIONS, progress=interrupted(3))
    return out


def interrupted(after: int) -> train.Progress:
    asked = itertools.count(1)
    return train.Progress(interrupted=lambda: next(asked) >= after)


@every_job
@pytest.mark.parametrize(
    "dispatches",
    [tiers.slow(n, n in (1, 3, DISPATCHES)) for n in range(1, DISPATCHES + 1)],
)
def test_stopped_once(job, dispatches, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        JOBS[job]().run(tmp_path, OPTIONS, progress=interrupted(dispatches))
    said = []
    progress = train.Progress(message=said.append)
    done = JOBS[job]().run(tmp_path, OPTIONS, progress=progress)
    if dispatches < DISPATCHES:
        assert said == [f"continues at step {2 * dispatches}"]
    else:
        assert [text.partition(":")[0] for text in said] == ["finished already"]
    assert outcome(tmp_path, done.state) == whole(job)


@every_job
def test_stopped_after_every_dispatch(job, whole, tmp_path):
    for _ in range(DISPATCHES):
        with pytest.raises(KeyboardInterrupt):
            JOBS[job]().run(tmp_path, OPTIONS, progress=interrupted(1))
    done = JOBS[job]().run(tmp_path, OPTIONS)
    assert outcome(tmp_path, done.state) == whole(job)


def test_another_seed_is_another_run(whole, tmp_path):
    done = JOBS["text, stream"]().run(tmp_path, OPTIONS, seed=1)
    metrics, state = outcome(tmp_path, done.state)
    assert metrics != whole("text, stream")[0]
    assert state != whole("text, stream")[1]


@every_job
def test_a_finished_run_stays_as_it_is(job, whole, tmp_path):
    first = JOBS[job]().run(tmp_path, OPTIONS)
    before = listing(tmp_path)
    dispatched = []
    progress = train.Progress(updates=lambda *told: dispatched.append(told))
    again = JOBS[job]().run(tmp_path, OPTIONS, progress=progress)
    assert outcome(tmp_path, again.state) == whole(job)
    assert again.held_out == first.held_out
    assert not dispatched
    assert listing(tmp_path) == before


def metrics_end_with(path: pathlib.Path, more: bytes) -> None:
    path.write_bytes(path.read_bytes() + more)


@pytest.mark.parametrize(
    "more",
    [b'{"step": 7, "lo', b'{"step": 7, "loss": 1.0}\n', b"\xff\n", b"7\n", b"{}\n"],
)
def test_what_was_written_after_the_checkpoint_is_written_again(
    more, stopped, whole, tmp_path
):
    out = pathlib.Path(shutil.copytree(stopped, tmp_path / "run"))
    metrics_end_with(out / "metrics.jsonl", more)
    done = JOBS["text, stream"]().run(out, OPTIONS)
    assert outcome(out, done.state) == whole("text, stream")


def test_a_longer_plan_goes_on(tmp_path):
    job = JOBS["text, stream"]()
    short = OPTIONS._replace(updates=4)
    job.run(tmp_path, short)
    done = job.run(tmp_path, OPTIONS._replace(updates=8))
    final = [
        line["step"]
        for line in train.MetricsFile(tmp_path / "metrics.jsonl").lines()
        if "final_held_out" in line
    ]
    assert int(done.state.position) == 8
    assert final == [4, 8]


def test_never_more_checkpoints_than_asked(tmp_path):
    options = OPTIONS._replace(per_dispatch=1, checkpoint_every=1, keep=2)
    JOBS["text, stream"]().run(tmp_path, options)
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoint").iterdir())
    assert kept == [8, 9]


@pytest.mark.slow
def test_patience_stops_and_stays_stopped(tmp_path):
    """Learning at a rate of zero never gets better than its first evaluation."""
    import optax

    job = JOBS["adding, exact"]()._replace(optimizer=optax.sgd(0.0))
    options = OPTIONS._replace(updates=60, patience=2)
    first = job.run(tmp_path, options)
    assert first.stopped_early
    # evaluations after 4, 6, 10 steps; two of them are not better than the first
    assert int(first.state.position) == 10
    before = listing(tmp_path)
    again = job.run(tmp_path, options)
    assert again.stopped_early
    assert outcome(tmp_path, again.state) == outcome(tmp_path, first.state)
    assert listing(tmp_path) == before


def test_patience_waits_while_it_gets_better(tmp_path):
    job = JOBS["text, stream"]()
    done = job.run(tmp_path, OPTIONS._replace(updates=30, patience=20))
    assert not done.stopped_early
    assert int(done.state.position) == 30


@pytest.mark.parametrize("name", train.RunOptions._fields)
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3"])
def test_an_impossible_option(name, value, tmp_path):
    options = OPTIONS._replace(**{name: value})
    with pytest.raises(ValueError, match=rf"{name}: expected a whole number.*{value}"):
        JOBS["text, stream"]().run(tmp_path / "out", options)
    assert not list(tmp_path.iterdir())
