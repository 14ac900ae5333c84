"""How many lanes: measured on the machine at hand.

On a CPU more lanes than one are often slower, because what several configurations store
leaves the cache; a GPU needs many to be busy. So a CPU is tried with one lane and with eight,
others with 64 and eight times as many, as long as a configuration gets faster.
"""

import hashlib
import os
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from bptt_jax import _files
from bptt_jax import _pytrees as trees
from bptt_jax.sweep import _store, _training
from bptt_jax.sweep._program import Program, configs, count, program, spread
from bptt_jax.sweep._training import Training

FACTOR = 8
GAIN = 0.9  # of the time a configuration takes, for which more lanes are taken
LANES = {"cpu": (1, 8)}  # what is tried, by platform; others: 64, 512, …
MOST_STEPS = 8  # in a call
SECONDS = 0.1  # of a measurement, about


class Layout(NamedTuple):
    """How a group of configurations is spread.

    lanes: configurations on a device at a time.
    devices: of all processes.
    milliseconds: measured lanes -> time of a step of one configuration.
    """

    lanes: int
    devices: int
    milliseconds: dict[int, float]

    def __str__(self) -> str:
        tried = ", ".join(f"{n}: {t:.3g} ms" for n, t in self.milliseconds.items())
        why = f" (a step of one configuration by lanes: {tried})" if tried else ""
        lanes = f"{self.lanes} lane{'s' if self.lanes > 1 else ''}"
        return f"{lanes} on {self.devices} device{'s' if self.devices > 1 else ''}{why}"


def measured(
    training: Training, columns: dict[str, np.ndarray], rows: list[int], mesh: Mesh
) -> tuple[Layout, Program]:
    """The fastest layout for these rows, from the cache where it was measured before."""
    most = -(-len(rows) // mesh.size)
    tried = _tried(mesh.devices.flat[0].platform, most)
    key = _key(training, columns, rows, mesh, most)
    known = _remembered(key)
    if known is not None:
        return known, program(training, known.lanes, mesh)
    times: dict[int, float] = {}
    found, best = None, 1
    for lanes in tried:
        candidate = program(training, lanes, mesh)
        times[lanes] = _milliseconds(training, columns, rows, candidate)
        if found is not None and times[lanes] > GAIN * times[best]:
            break
        found, best = candidate, lanes
    assert found is not None
    layout = Layout(best, mesh.size, {n: round(t, 6) for n, t in times.items()})
    _remember(key, layout)
    return layout, found


def _tried(platform: str, most: int) -> list[int]:
    """Lanes to try, in order: no more than there are configurations for."""
    if platform in LANES:
        return [n for n in LANES[platform] if n <= most]
    powers = [64 * FACTOR**k for k in range(8)]
    return [n for n in powers if n <= most] or [most]


def _milliseconds(training, columns, rows, candidate: Program) -> float:
    """Of a step of one configuration: the least of three measurements."""
    some = (rows * candidate.size)[: candidate.size]
    config = configs(columns, some, candidate.mesh)
    lanes = _zeros(jax.eval_shape(candidate.begin, config), candidate.mesh)
    items = training.read(0, MOST_STEPS)

    def seconds(steps: int, calls: int) -> float:
        """Of a step of the group."""
        nonlocal lanes
        metrics, began = None, time.perf_counter()
        for _ in range(calls):
            lanes, metrics = candidate.advance(config, lanes, items, count(steps))
        jax.block_until_ready(metrics)
        return (time.perf_counter() - began) / (steps * calls)

    seconds(1, 1)  # compiles
    once = seconds(1, 1)
    steps = max(1, min(MOST_STEPS, int(SECONDS / once)))
    calls = max(1, min(64, int(SECONDS / (once * steps))))
    return 1e3 * min(seconds(steps, calls) for _ in range(3)) / candidate.size


def _zeros(shapes: Any, mesh: Mesh) -> Any:
    """Lanes that nothing has been compiled for; how long a step takes they can tell."""

    def zeros(a):
        if trees.is_key(a):
            data = jax.eval_shape(jax.random.key_data, a)
            return spread(np.zeros(data.shape, data.dtype), mesh)
        return spread(np.zeros(a.shape, a.dtype), mesh)

    return _store.as_like(shapes, jax.tree.map(zeros, shapes))


def _key(training: Training, columns, rows, mesh: Mesh, most: int) -> str:
    """The same program on the same machine."""
    row = {
        name: jax.ShapeDtypeStruct((), values.dtype) for name, values in columns.items()
    }
    lane = jax.eval_shape(lambda c: _training.begin(training, c), row)
    item = jax.tree.map(lambda a: a[0], training.read(0, 1))
    text = str(jax.make_jaxpr(training.step)(row, lane.state, item))
    device = mesh.devices.flat[0]
    parts = text, jax.__version__, device.device_kind, mesh.size, os.cpu_count(), most
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _file() -> pathlib.Path | None:
    folder = _files.cache_folder()
    return folder and folder / "layouts.json"


def _remembered(key: str) -> Layout | None:
    try:
        found = _files.remembered(_file())[key]
        times = {int(n): float(t) for n, t in found["milliseconds"].items()}
        return Layout(int(found["lanes"]), int(found["devices"]), times)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _remember(key: str, layout: Layout) -> None:
    path = _file()
    _files.remember(path, _files.remembered(path) | {key: layout._asdict()})
