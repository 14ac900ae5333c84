"""Reading beside computing, and how fast a run is."""

import json
import threading

import numpy as np
import pytest

from bptt_jax import train
from bptt_jax.train._reading import Reading, dispatches
from support.training import adding, listing, outcome, text

OPTIONS = train.RunOptions(
    updates=9, per_dispatch=2, evaluate_every=99, checkpoint_every=99, evaluate_batches=2,
    final_batches=2,
)  # fmt: skip


def reading(job, read):
    """The job with another reader of its training part."""
    stream = job.task.train
    return job._replace(task=job.task._replace(train=stream._replace(read=read)))


def test_dispatches():
    assert list(dispatches(4, 9, 2)) == [(4, 2), (6, 2), (8, 1)]
    assert not list(dispatches(9, 9, 2))


def test_the_next_but_one_is_read_while_one_is_computed(tmp_path):
    """Nobody is told of a dispatch before the one after the next has begun to be read."""
    job, begun, seen = adding(), {}, []
    here = threading.get_ident()

    def read(first, n):
        if threading.get_ident() != here:
            seen.append((first, n))
            begun.setdefault(first, threading.Event()).set()
        return job.task.train.read(first, n)

    def tell(position, losses):
        if position + 2 < 9:
            event = begun.setdefault(position + 2, threading.Event())
            assert event.wait(600), f"nothing is read beside {position}"

    done = reading(job, read).run(
        tmp_path, OPTIONS, progress=train.Progress(updates=tell)
    )
    assert seen == [(0, 2), (2, 2), (4, 2), (6, 2), (8, 1)]
    plain = job.run(tmp_path / "plain", OPTIONS)
    assert outcome(tmp_path, done.state) == outcome(tmp_path / "plain", plain.state)
    assert not [t for t in threading.enumerate() if t.name.startswith("bptt_jax reads")]


def test_what_a_reader_raises_is_raised(tmp_path):
    job = adding()

    def read(first, n):
        if first >= 4:
            raise OSError("the disk is gone")
        return job.task.train.read(first, n)

    with pytest.raises(OSError, match="the disk is gone"):
        reading(job, read).run(tmp_path, OPTIONS)
    assert not [t for t in threading.enumerate() if t.name.startswith("bptt_jax reads")]
    assert outcome(tmp_path, job.run(tmp_path, OPTIONS).state)[0]


def test_waiting_is_counted():
    let = threading.Event()

    def read(first, n):
        assert let.wait(600)
        return np.arange(first, first + n)

    found = Reading(read, dispatches(0, 4, 2))
    threading.Timer(0.05, let.set).start()
    n, items = found.next()
    assert (n, items.tolist()) == (2, [0, 1])
    waited = found.waited
    assert waited > 0.01
    n, items = found.next()
    assert items.tolist() == [2, 3]
    found.close()


def lines(out) -> list[dict]:
    return [json.loads(x) for x in (out / "timings.jsonl").read_text().splitlines()]


def test_timings(tmp_path):
    told = []
    tell = train.Progress(advanced=lambda status: told.append(status.rates))
    text().run(tmp_path, OPTIONS, progress=tell)
    found = lines(tmp_path)
    assert [x["step"] for x in found] == [2, 4, 6, 8, 9]
    for line, rates in zip(found, told, strict=True):
        assert list(line) == [
            "step", "time", "seconds", "updates_per_second", "tokens_per_second",
            "data_wait",
        ]  # fmt: skip
        assert rates.items() <= line.items()
        updates = line["updates_per_second"] * line["seconds"]
        assert updates == pytest.approx(1 if line["step"] == 9 else 2)
        tokens = line["tokens_per_second"] / line["updates_per_second"]
        assert tokens == pytest.approx(3 * 6)  # examples, steps of time
        assert 0 <= line["data_wait"] <= 1
    before = listing(tmp_path)
    text().run(tmp_path, OPTIONS)
    assert listing(tmp_path) == before


def test_timings_of_a_run_that_goes_on(tmp_path):
    asked = iter([False, False, True])
    stop = train.Progress(interrupted=lambda: next(asked))
    with pytest.raises(KeyboardInterrupt):
        text().run(tmp_path, OPTIONS, progress=stop)
    path = tmp_path / "timings.jsonl"
    path.write_text(path.read_text() + '{"step": 8, "ti')
    text().run(tmp_path, OPTIONS)
    assert [x["step"] for x in lines(tmp_path)] == [2, 4, 6, 8, 9]
    assert "time" not in (tmp_path / "metrics.jsonl").read_text()
