"""What a worker of a sweep does: one group after another, each on a device of its own.

Workers share nothing with each other and nothing with the client but what is in a `Job`, and
where it is shared the folder. Trainings are kept by their digest, so each is unpickled and
compiled once.
"""

import collections
import contextlib
import functools
import importlib.metadata
import pathlib
import pickle
import platform
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

import bptt_jax
from bptt_jax.sweep import _group, _layout, _rows
from bptt_jax.sweep._attempts import Attempts
from bptt_jax.sweep._group import Group
from bptt_jax.sweep._job import Ended, Evaluated, Failed, Job, Missing, Stopped, Unfit
from bptt_jax.sweep._layout import Layout
from bptt_jax.sweep._program import Program, configs, mesh_of, program
from bptt_jax.sweep._standing import worth_of
from bptt_jax.sweep._training import Training

KEPT = 16
"""Trainings that a worker keeps, those that it was asked for last."""
SETTINGS = (
    "jax_default_prng_impl", "jax_threefry_partitionable", "jax_enable_x64",
    "jax_default_matmul_precision", "jax_numpy_dtype_promotion",
)  # fmt: skip
"""Settings of JAX that change numbers."""


def work(job: Job) -> Ended | Failed | Missing | Stopped | Unfit:
    """Trains a group to the end of its rung, from where an attempt before has come."""
    return _on_a_device(job, _train)


def measure(job: Job) -> Layout | Failed | Missing | Unfit:
    """How many lanes are fastest here, of at most as many as the job has configurations."""
    return _on_a_device(job, _measure)


def settings() -> dict[str, Any]:
    """What must be the same of a client and its workers."""
    found = {name: getattr(jax.config, name) for name in SETTINGS}
    versions = dict(bptt_jax=bptt_jax.__version__)
    versions |= {name: importlib.metadata.version(name) for name in ("jax", "optax")}
    return found | versions


def _on_a_device(job: Job, do) -> Any:
    here = settings()
    for name, value in job.settings.items():
        if here[name] != value:
            return Unfit(f"{name} is {here[name]!r} there and {value!r} here")
    try:
        training = _training(job)
    except Exception as error:  # unpickling runs whatever modules do
        return Unfit(f"it cannot read the training: {told(error)}")
    if training is None:
        return Missing()
    with _device() as device:
        try:
            return do(job, training, device)
        except Exception as error:  # of functions of one's own
            return Failed(told(error))


def told(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


# What is kept between groups

_trainings: collections.OrderedDict[str, Training] = collections.OrderedDict()
_programs: dict[tuple[str, int, int], Program] = {}
_lock = threading.RLock()


def _training(job: Job) -> Training | None:
    with _lock:
        if job.digest not in _trainings:
            if job.sent is None:
                return None
            _trainings[job.digest] = pickle.loads(job.sent)
        _trainings.move_to_end(job.digest)
        while len(_trainings) > KEPT:
            gone, _ = _trainings.popitem(last=False)
            for key in [key for key in _programs if key[0] == gone]:
                del _programs[key]
        return _trainings[job.digest]


def _program(job: Job, training: Training, device: Any) -> Program:
    key = job.digest, job.lanes, device.id
    with _lock:
        if key not in _programs:
            _programs[key] = program(training, job.lanes, mesh_of([device]))
        return _programs[key]


@functools.cache
def _devices() -> queue.SimpleQueue:
    """The devices of this process that no group is on."""
    free: queue.SimpleQueue = queue.SimpleQueue()
    for device in jax.local_devices():
        free.put(device)
    return free


@contextlib.contextmanager
def _device() -> Iterator[Any]:
    """One of them; where a worker has more threads than devices they wait."""
    with _lock:
        free = _devices()
    device = free.get()
    try:
        with jax.default_device(device):
            yield device
    finally:
        free.put(device)


# One group


def _train(job: Job, training: Training, device: Any) -> Ended | Stopped:
    made = _program(job, training, device)
    config = configs(job.numbers, list(range(job.lanes)), made.mesh)
    group = Group(training, made, config, job.every)
    attempts = Attempts(job.folder, job.token)
    step, found, lanes = _begin(job, group, attempts)
    begun, saved = step, time.monotonic()
    while step < job.until:
        if not attempts.wanted():
            return Stopped()
        n = _group.length(step, job.until, job.every)
        lanes, means = _group.train(group, lanes, step, n)
        step += n
        found.append(Evaluated(step, *_group.evaluated(group, lanes, means, job.real)))
        late = time.monotonic() - saved >= job.seconds
        if step < job.until and (late or not attempts.wanted()):
            attempts.save(step, found, _group.on_host(lanes))
            saved = time.monotonic()
    return Ended(found, _kept(job, found, lanes), hardware(device), begun)


def _begin(job: Job, group: Group, attempts: Attempts):
    """`(step, evaluations so far, lanes)`."""
    if saved := attempts.furthest(_group.like_of(group)):
        step, found, host = saved
        return step, found, _group.placed(group, host)
    if job.entering is not None:
        return job.step, [], _group.placed(group, _group.stacked(job.entering))
    return job.step, [], _group.from_the_first(group, job.step)


def _kept(job: Job, found: list[Evaluated], lanes: Any) -> dict[int, Any]:
    """The states that the client needs: all, or of those that may be among the best."""
    last, host = found[-1], _group.on_host(lanes)
    if job.bound is None:
        return {j: _group.left(host, j, last=False) for j in range(job.real)}
    rows = _rows.lines(0, 0, job.until, True, range(job.real), *last[1:])
    worth = [worth_of(job.score, row) for row in rows]
    some = [j for j, w in enumerate(worth) if w <= job.bound]
    return {j: _group.left(host, j, last=True) for j in some}


def _measure(job: Job, training: Training, device: Any) -> Layout:
    rows = list(range(job.real))
    return _layout.measured(training, job.numbers, rows, mesh_of([device]))[0]


def hardware(device: Any) -> str:
    """What a device is: numbers of unlike ones differ in their last digits."""
    kind = device.device_kind
    return _processor() if device.platform == "cpu" else kind


@functools.cache
def _processor() -> str:
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
        name = next(x for x in text.splitlines() if x.startswith("model name"))
        return " ".join(name.partition(":")[2].split())
    except (OSError, StopIteration):
        return platform.machine() or "cpu"


def numbers_of(columns: dict[str, np.ndarray], rows: list[int]) -> dict[str, Any]:
    return {name: values[rows] for name, values in columns.items()}
