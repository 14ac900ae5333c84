"""Sweeps on Dask's workers, which die, are slow, come late; and on processes of a pool."""

import concurrent.futures
import functools
import multiprocessing
import os
import pathlib
import signal
import threading
import time

import pytest

from bptt_jax import sweep, train
from support import compiled
from support.sweeping import SPACE, at_fault, descent, go, steps_made, told_of

pytestmark = [pytest.mark.slow, compiled.as_users]  # as the workers do

OPTIONS = dict(steps=120, evaluate_every=20, lanes=2, checkpoint_seconds=0.0)
GROUPS = -(-SPACE.size // 2)
UNITS = 6  # of a group


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return go(tmp_path_factory.mktemp("whole") / "s")


@pytest.fixture(scope="module")
def cluster():
    """Two workers of one thread each, each a process that is started again if it dies."""
    distributed = pytest.importorskip("distributed")
    options = dict(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with distributed.LocalCluster(memory_limit=0, **options) as found:
        yield found


def of(training, out, executor, **options):
    progress = train.Progress(message=options.pop("message", lambda text: None))
    options = OPTIONS | dict(progress=progress) | options
    return sweep.run(training, SPACE, out=out, executor=executor, **options)


def same(found, wanted) -> bool:
    files = [[b.path.read_bytes() for b in each.best] for each in (found, wanted)]
    return found.table.equals(wanted.table) and files[0] == files[1]


def once(path: pathlib.Path) -> bool:
    """Whether this is the first of all processes that asks."""
    try:
        path.touch(exist_ok=False)
        return True
    except FileExistsError:
        return False


# What trainings do on a worker, before a call of the program


def dies_once(folder: pathlib.Path, first: int) -> None:
    if first == 60 and once(folder / "died"):
        os.kill(os.getpid(), signal.SIGKILL)


def one_is_slow(folder: pathlib.Path, first: int) -> None:
    """The first process that comes here waits, until all that the other could do is done."""
    if first == 20 and once(folder / "slow"):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            ended = sum(at == 100 for _, at, _ in steps_made(folder))
            if ended >= GROUPS - 1:
                (folder / "waited").touch()
                return
            time.sleep(0.02)


def waits_for_another(folder: pathlib.Path, first: int) -> None:
    """Until two processes have made steps."""
    while len({pid for pid, _, _ in steps_made(folder)}) < 2:
        (folder / "alone").touch()
        time.sleep(0.02)


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def training_of(tmp_path, act=None):
    folder = tmp_path / "made"
    folder.mkdir()
    return folder, told_of(folder, act and functools.partial(act, folder))


def by_value():
    """The functions of this file are in no module that workers can import."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])


by_value()


def test_a_worker_that_is_killed_costs_its_unfinished_group(tmp_path, cluster, whole):
    """By SIGKILL in the middle of a group: no more is made twice than since its last save."""
    folder, training = training_of(tmp_path, dies_once)
    with cluster.get_client() as client:
        executor = client.get_executor(pure=False)
        found = of(training, tmp_path / "s", executor)
    assert (folder / "died").exists()
    assert same(found, whole)
    made = [at for _, at, _ in steps_made(folder)]
    assert len(made) == GROUPS * UNITS + 1  # the unit in which it died
    assert made.count(60) == GROUPS + 1


def test_a_slow_worker_delays_nobody(tmp_path, cluster, whole):
    folder, training = training_of(tmp_path, one_is_slow)
    with cluster.get_client() as client:
        found = of(training, tmp_path / "s", client.get_executor(pure=False))
    assert (folder / "waited").exists()  # all the other groups had ended
    assert same(found, whole)


def test_a_late_worker_gets_work(tmp_path, cluster, whole):
    folder, training = training_of(tmp_path, waits_for_another)
    cluster.scale(1)
    (folder / "steps").touch()

    def later():
        while not (folder / "alone").exists():
            time.sleep(0.02)
        cluster.scale(2)

    with cluster.get_client() as client:
        while len(client.nthreads()) > 1:
            time.sleep(0.05)
        thread = threading.Thread(target=later)
        thread.start()
        found = of(training, tmp_path / "s", client.get_executor(pure=False))
        thread.join()
    assert len({pid for pid, _, _ in steps_made(folder)}) == 2
    assert same(found, whole)


def test_a_configuration_that_kills_its_worker_is_found(tmp_path, cluster):
    """Dask gives it up after some deaths; it is submitted again, so often and no more."""
    rates = sweep.grid(lr=[0.3, 0.1, 0.01, 0.03, 0.2])
    progress = train.Progress(message=lambda text: None)
    options = dict(steps=4, evaluate_every=2, lanes=1, progress=progress)
    with cluster.get_client() as client:
        client.run_on_scheduler(_allow, 0)
        executor, training = client.get_executor(pure=False), at_fault(0.01, dies)
        found = sweep.run(
            training, rates, out=tmp_path / "s", executor=executor, **options
        )
        client.run_on_scheduler(_allow, 3)
    wanted = sweep.run(descent, rates, out=tmp_path / "plain", **options)
    keep = lambda t, error: [
        [r[k] for k in ("config", "step", "loss", "x")]
        for r in t.to_pylist()
        if (r["lr"] == 0.01) == error
    ]
    assert keep(found.table, False) == keep(wanted.table, False)
    errors = {r["error"] for r in found.table.to_pylist() if r["lr"] == 0.01}
    assert len(errors) == 1
    assert "its worker was lost 3 times (KilledWorker" in errors.pop()


def _allow(failures, dask_scheduler):
    dask_scheduler.allowed_failures = failures


def test_a_scheduler_that_is_lost_and_the_same_again(tmp_path, whole):
    from distributed import Client, LocalCluster

    folder, training = training_of(tmp_path)
    options = dict(n_workers=2, threads_per_worker=1, dashboard_address=None)
    cluster = LocalCluster(memory_limit=0, processes=True, **options)

    def later():
        rows = tmp_path / "s" / "rows.jsonl"
        while not (rows.exists() and rows.read_bytes()):
            time.sleep(0.01)
        cluster.close()

    with Client(cluster.scheduler_address, timeout=2) as client:
        thread = threading.Thread(target=later)
        thread.start()
        with pytest.raises(ConnectionError, match="the same command goes on"):
            of(training, tmp_path / "s", client.get_executor(pure=False), lanes=1)
        thread.join()
    ended = (tmp_path / "s" / "rows.jsonl").read_text().count("\n") // UNITS
    assert 0 < ended < SPACE.size
    before = len(steps_made(folder))
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        found = of(training, tmp_path / "s", executor, lanes=1)
    wanted = go(tmp_path / "plain", lanes=1)
    assert same(found, wanted)
    assert len(steps_made(folder)) - before <= (SPACE.size - ended) * UNITS


def test_each_worker_compiles_once(tmp_path, cluster):
    """Counted by its own JAX, over more groups than workers."""
    with cluster.get_client() as client:
        client.run(_count)
        of(descent, tmp_path / "s", client.get_executor(pure=False), lanes=1)
        first = client.run(_counted)
        of(descent, tmp_path / "s2", client.get_executor(pure=False), lanes=1)
        second = client.run(_counted)
    assert all(n > 0 for n in first.values())
    assert second == first


def _count():
    import jax

    import support.sweeping

    support.sweeping.compiled_here = 0

    def listen(event, seconds, **_):
        support.sweeping.compiled_here += "backend_compile" in event

    jax.monitoring.register_event_duration_secs_listener(listen)


def _counted():
    import support.sweeping

    return support.sweeping.compiled_here


# Processes of a pool


def test_a_pool_breaks_and_the_same_command_goes_on(tmp_path, whole):
    folder, training = training_of(tmp_path, dies_once)
    spawn, said = multiprocessing.get_context("spawn"), []
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as pool:
        with pytest.raises(ConnectionError, match="the same command goes on"):
            of(training, tmp_path / "s", pool, message=said.append)
    assert any(
        "a process that is killed breaks the whole pool" in text for text in said
    )
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as pool:
        found = of(training, tmp_path / "s", pool)
    assert same(found, whole)
    made = [at for _, at, _ in steps_made(folder)]
    assert len(made) <= GROUPS * UNITS + 2  # a unit of each process
