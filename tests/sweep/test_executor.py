"""`sweep.run(executor=)`: groups as tasks, and the table of one process whatever happens."""

import concurrent.futures
import json
import multiprocessing
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, models, sweep, tasks, train
from bptt_jax.sweep import _executors, _store, _tasks, _worker
from bptt_jax.sweep._attempts import Attempts
from bptt_jax.sweep._job import Evaluated
from support.compilations import compilations
from support.sweeping import SPACE, at_fault, descent, go, steps_made, told_of


class AtOnce(concurrent.futures.Executor):
    """Runs what it is given at once, in this thread; `before(job)` may raise."""

    max_workers = 2

    def __init__(self, before=lambda job: None):
        self.before, self.jobs = before, []

    def submit(self, f, /, *arguments):
        future = concurrent.futures.Future()
        self.jobs.append(arguments[0])
        try:
            self.before(arguments[0])
            future.set_result(f(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return go(tmp_path_factory.mktemp("whole") / "s")


def same(found, wanted) -> bool:
    """Tables, the best, and their parameters, bit for bit."""
    files = [[b.path.read_bytes() for b in each.best] for each in (found, wanted)]
    best = [[b._replace(path=None) for b in each.best] for each in (found, wanted)]
    return (
        found.table.equals(wanted.table) and best[0] == best[1] and files[0] == files[1]
    )


def quietly(**options):
    return train.Progress(message=lambda text: None, **options)


def of(training, out, executor, **options):
    defaults = dict(steps=120, evaluate_every=20, lanes=2, checkpoint_seconds=0.0)
    options = dict(progress=quietly()) | defaults | options
    return sweep.run(training, SPACE, out=out, executor=executor, **options)


# The same numbers


def test_the_table_is_that_of_one_process(tmp_path, whole):
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        found = go(tmp_path / "s", executor=executor)
    assert same(found, whole)
    assert sweep.load(tmp_path / "s").table.equals(whole.table)
    record = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert (record["devices"], record["layouts"]) == (1, {"0": 2})
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [
        "best", "best.json", "results.parquet", "rows.jsonl", "sweep.json",
    ]  # fmt: skip


def test_rungs_are_a_barrier(tmp_path):
    how = dict(halving=sweep.halving(2, rungs=3), evaluate_every=10)
    wanted = go(tmp_path / "plain", **how)
    executor = AtOnce()
    found = of(descent, tmp_path / "s", executor, **how)
    assert same(found, wanted)
    begins = [job.step for job in executor.jobs]
    assert begins == sorted(begins)
    assert len(set(begins)) == 3
    assert not list((tmp_path / "s" / "lanes").rglob("*.safetensors"))


def test_static_choices_and_functions_of_ones_own(tmp_path):
    """A lambda, and what it closes over, travel; each choice is a program of its own."""
    task = tasks.adding(batch=2, T=6)
    kinds = dict(elman=cells.elman, indrnn=cells.indrnn)

    def one(kind):
        model = models.features((kinds[kind](2, 3),), 1, 3)
        exact = estimators.exact(model, task.objective)
        return sweep.training(
            task, model, exact, lambda lr: optax.sgd(lr), held_out_batches=1
        )

    space = sweep.product(sweep.static(kind=list(kinds)), sweep.grid(lr=[0.1, 0.01]))
    options = dict(steps=4, evaluate_every=2, lanes=1, progress=quietly())
    wanted = sweep.run(one, space, out=tmp_path / "plain", **options)
    found = sweep.run(one, space, out=tmp_path / "s", executor=AtOnce(), **options)
    assert same(found, wanted)
    assert len(found.layouts) == 2


def test_a_worker_compiles_each_program_once(tmp_path):
    counts = []
    for n in (2, 8):
        _worker._trainings.clear()
        _worker._programs.clear()
        rates = sweep.grid(lr=list(np.linspace(0.01, 0.1, n)))
        with compilations() as made:
            sweep.run(
                descent, rates, steps=4, evaluate_every=2, lanes=1, out=tmp_path / f"{n}",
                executor=AtOnce(), progress=quietly(),
            )  # fmt: skip
        counts.append(len(made))
    assert counts[0] >= 2
    assert counts[1] <= counts[0]


def test_a_large_training_is_sent_to_whom_it_is_missing(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(_tasks, "SMALL", 0)
    _worker._trainings.clear()
    executor = AtOnce()
    assert same(of(descent, tmp_path / "s", executor), whole)
    # of those that were submitted at a time, and of none after them
    assert (
        sum(job.sent is not None for job in executor.jobs) == 2 * executor.max_workers
    )


def test_lanes_are_measured_by_a_worker(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = of(descent, tmp_path / "s", AtOnce(), lanes=None, steps=20)
    assert "a step of one configuration by lanes" in found.layouts[0]
    assert json.loads((tmp_path / "s/sweep.json").read_text())["layouts"]["0"] in (1, 8)


def test_few_are_submitted(tmp_path):
    """At most two for each place, so that a worker's death counts against few."""
    most, now, lock = 0, 0, threading.Lock()

    class Counting(concurrent.futures.ThreadPoolExecutor):
        def submit(self, *arguments):
            nonlocal most, now
            with lock:
                now += 1
                most = max(most, now)
            future = super().submit(*arguments)
            future.add_done_callback(lambda _: leave())
            return future

    def leave():
        nonlocal now
        with lock:
            now -= 1

    with Counting(2) as executor:
        of(descent, tmp_path / "s", executor, lanes=1)
    assert 2 <= most <= 4


# What goes wrong


def test_what_was_lost_is_submitted_again(tmp_path, whole):
    """Each group twice, with what came of it: from its last saved state."""
    lost: dict[str, int] = {}
    folder = tmp_path / "made"
    folder.mkdir()

    def before(job):
        lost[job.folder] = lost.get(job.folder, 0) + 1
        if lost[job.folder] <= 2:
            raise concurrent.futures.BrokenExecutor("a worker is gone")

    said = []
    found = of(
        told_of(folder), tmp_path / "s", AtOnce(before),
        progress=train.Progress(message=said.append),
    )  # fmt: skip
    assert same(found, whole)
    assert set(lost.values()) == {3}
    assert any("lost (BrokenExecutor: a worker is gone)" in text for text in said)


def test_a_group_goes_on_from_its_last_saved_state(tmp_path, whole):
    """Of three that end in the middle not a step before the last save is made again."""
    folder, left = tmp_path / "made", [3]
    folder.mkdir()

    def act(first):
        if first == 60 and left[0]:
            left[0] -= 1
            raise MemoryError  # as if it had been killed: see `Broken`

    class Broken(AtOnce):
        """What a training raises is lost with its worker."""

        def submit(self, f, /, *arguments):
            future = super().submit(f, *arguments)
            if isinstance(future.result(), _worker.Failed):
                gone = concurrent.futures.Future()
                gone.set_exception(concurrent.futures.BrokenExecutor())
                return gone
            return future

    # the worker unpickles a copy of `act`, so that is put back
    training = told_of(folder)
    executor = Broken()
    import cloudpickle

    digest, sent = _tasks.pickled(training)
    _worker._trainings.clear()
    _worker._trainings[digest] = told_of(folder, act)
    assert cloudpickle.dumps(training) == sent
    found = of(training, tmp_path / "s", executor)
    assert same(found, whole)
    assert left == [0]
    made = [at for _, at, _ in steps_made(folder)]
    groups = -(-SPACE.size // 2)
    assert len(made) == groups * 6 + 3  # the units that were broken off
    assert made.count(0) == groups


def refuse():
    raise ArithmeticError("this rate is poison")


def test_a_configuration_at_fault_is_found_and_marked(tmp_path, whole):
    """Its group is halved until it is alone; the others have their numbers."""
    said = []
    found = of(
        at_fault(0.1, refuse), tmp_path / "s", AtOnce(), lanes=4,
        progress=train.Progress(message=said.append),
    )  # fmt: skip
    wanted = go(tmp_path / "plain", lanes=4)
    rows = found.table.to_pylist()
    assert {r["error"] for r in rows if r["lr"] == 0.1} == {
        "ArithmeticError: this rate is poison"
    }
    assert all(r["loss"] is None for r in rows if r["lr"] == 0.1)
    keep = lambda t: [
        {k: r[k] for k in ("config", "step", "loss", "x")}
        for r in t.to_pylist()
        if r["lr"] != 0.1
    ]
    assert keep(found.table) == keep(wanted.table)
    assert all(r["error"] is None for r in rows if r["lr"] != 0.1)
    assert [b.values["lr"] for b in found.best] != [0.1] * 3
    assert sum("this rate is poison" in text for text in said) == 3
    again = of(at_fault(0.1, refuse), tmp_path / "s", AtOnce(), lanes=4)
    assert again.table.equals(found.table)


def test_a_group_that_is_lost_again_and_again_is_at_fault(tmp_path):
    """Two of its workers died as well: not for ever."""

    def before(job):
        if 0.3 in np.round(job.numbers["lr"], 6):
            raise concurrent.futures.BrokenExecutor("killed")

    found = of(descent, tmp_path / "s", AtOnce(before), lanes=4)
    bad = {r["config"] for r in found.table.to_pylist() if r["error"]}
    assert bad == {0, 1, 2}
    texts = {r["error"] for r in found.table.to_pylist() if r["error"]}
    assert texts == {"its worker was lost 3 times (BrokenExecutor: killed)"}


def test_where_all_fail_it_is_no_configurations_fault(tmp_path):
    def broken(config, key):
        state, step = descent(config, key)
        return state, step

    training = at_fault(0.1, refuse)._replace(figures=lambda found: refuse())
    with pytest.raises(ValueError, match="first 8 configurations fail: Arithmetic"):
        of(training, tmp_path / "s", AtOnce())
    assert (tmp_path / "s" / "rows.jsonl").read_text() == ""
    assert of(descent, tmp_path / "s", AtOnce()).table.num_rows == SPACE.size * 6


def test_an_executor_that_is_gone_is_said_and_the_same_goes_on(tmp_path, whole):
    class Ends(AtOnce):
        def submit(self, *arguments):
            if len(self.jobs) == 3:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return super().submit(*arguments)

    with pytest.raises(ConnectionError, match="the same command goes on"):
        of(descent, tmp_path / "s", Ends())

    class Cancels(AtOnce):
        def submit(self, *arguments):
            future = concurrent.futures.Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with pytest.raises(ConnectionError, match="is cancelled; what has ended is saved"):
        of(descent, tmp_path / "s", Cancels())
    executor = AtOnce()
    assert same(of(descent, tmp_path / "s", executor), whole)
    assert 0 < len(executor.jobs) < -(-SPACE.size // 2)


def test_interrupted_and_continued(tmp_path, whole):
    looks = iter(range(100))
    progress = quietly(interrupted=lambda: next(looks) == 0)
    with pytest.raises(KeyboardInterrupt):
        of(descent, tmp_path / "s", AtOnce(), progress=progress)
    assert not list((tmp_path / "s" / "groups").glob("client-*"))
    lines = (tmp_path / "s" / "rows.jsonl").read_text().splitlines(True)
    assert 0 < len(lines) < SPACE.size * 6
    (tmp_path / "s" / "rows.jsonl").write_text("".join(lines[:-3]))  # and half a group
    assert same(of(descent, tmp_path / "s", AtOnce()), whole)


def test_who_is_not_waited_for_saves_and_stops(tmp_path):
    """A client takes its token away, which a worker sees after an evaluation."""
    folder = tmp_path / "made"
    folder.mkdir()
    executor = AtOnce()
    of(descent, tmp_path / "s", executor, steps=120)
    job = executor.jobs[0]
    group, token = tmp_path / "group", tmp_path / "token"
    group.mkdir()
    token.touch()

    class Counted:
        at = 0

    def act(first):
        if first == 40:
            token.unlink()

    _worker._trainings[job.digest] = told_of(folder, act)
    _worker._programs.clear()
    job = job._replace(folder=str(group), token=str(token), seconds=1e9)
    assert _worker.work(job) == _worker.Stopped()
    assert [at for _, at, _ in steps_made(folder)] == [0, 20, 40]
    (path,) = group.iterdir()
    assert _store.record(path)["step"] == "60"


def test_an_attempt_spoils_no_other(tmp_path):
    """One that was thought lost goes on beside the next, and neither waits."""
    token = tmp_path / "token"
    token.touch()
    like = np.zeros(3, np.float32)
    rows = [Evaluated(2, [dict(loss=1.0)], [-1])]
    slow = Attempts(str(tmp_path), str(token))
    slow.save(2, rows, like)
    late = Attempts(str(tmp_path), str(token))
    assert late.furthest(like)[0] == 2
    late.save(6, rows, like + 6)
    slow.save(4, rows, like + 4)
    assert slow.path != late.path
    step, found, state = Attempts(str(tmp_path), str(token)).furthest(like)
    assert (step, found, state.tolist()) == (6, rows, [6.0] * 3)
    late.path.write_bytes(late.path.read_bytes()[:-4] + b"\0\0\0\1")  # damaged
    assert Attempts(str(tmp_path), str(token)).furthest(like)[0] == 4
    token.unlink()
    blind = Attempts(str(tmp_path), str(token))
    blind.save(8, rows, like)
    assert blind.furthest(like) is None
    assert blind.wanted()
    assert not blind.path.exists()


def test_a_worker_that_is_set_otherwise_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        _tasks._worker, "settings", lambda: dict(settings, jax_enable_x64=True)
    )
    settings = _worker.settings
    settings = {name: getattr(jax.config, name) for name in _worker.SETTINGS}

    class Otherwise(AtOnce):
        def submit(self, f, job):
            return super().submit(f, job._replace(settings=dict(jax_enable_x64="odd")))

    with pytest.raises(ValueError, match="a worker is unfit: jax_enable_x64 is True"):
        of(descent, tmp_path / "s", Otherwise())


def test_unlike_hardware_is_a_column(tmp_path, monkeypatch):
    names = iter(["a", "b"] * 20)
    monkeypatch.setattr(_worker, "hardware", lambda device: next(names))
    said = []
    found = of(
        descent, tmp_path / "s", AtOnce(), steps=20,
        progress=train.Progress(message=said.append),
    )  # fmt: skip
    assert set(found.table["hardware"].to_pylist()) == {"a", "b"}
    assert sum("unlike hardware (a, b)" in text for text in said) == 1


# Bad input


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(TypeError, match="executor: expected what has submit"):
        of(descent, tmp_path / "s", 3)
    mesh = jax.make_mesh((1,), ("configs",))
    with pytest.raises(ValueError, match="mesh: each device of an executor's workers"):
        of(descent, tmp_path / "s", AtOnce(), mesh=mesh)
    with pytest.raises(TypeError, match="training: it cannot be sent to workers"):
        lock = threading.Lock()

        def holding(config, key):
            return descent(config, key) if lock else None

        of(holding, tmp_path / "s", AtOnce())
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=fork) as pool:
        with pytest.raises(ValueError, match="JAX does not work in forked processes"):
            of(descent, tmp_path / "s", pool)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_one_process_is_not_gone_on_with(tmp_path):
    go(tmp_path / "plain", steps=20)
    with pytest.raises(ValueError, match="was begun without an executor; go on so"):
        of(descent, tmp_path / "plain", AtOnce(), steps=20)
    of(descent, tmp_path / "s", AtOnce(), steps=20)
    with pytest.raises(ValueError, match="was begun with an executor; go on so"):
        go(tmp_path / "s", steps=20)


def test_what_executors_cannot_is_said():
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=spawn) as pool:
        assert "breaks the whole pool" in _executors.limits(pool)
        assert _executors.places(pool) == 3
    assert "AtOnce: whether it outlives" in _executors.limits(AtOnce())
    assert _executors.places(AtOnce()) == 2
    assert _executors.places(object()) == 1
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        assert _executors.limits(threads) is None


def test_each_device_takes_a_group_of_its_own():
    """Threads of a worker that are more than its devices wait for one."""
    n = len(jax.local_devices())
    seen, most, lock = [], 0, threading.Lock()

    def one():
        nonlocal most
        with _worker._device() as device, lock:
            seen.append(device)
            most = max(most, _worker._devices().qsize())
            assert jnp.zeros(()).devices() == {device}

    each = [threading.Thread(target=one) for _ in range(4)]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    assert len(seen) == 4
    assert most <= n - 1
    assert _worker._devices().qsize() == n
