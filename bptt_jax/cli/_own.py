"""The task of a file of one's own, `--data`."""

from typing import NamedTuple

from bptt_jax import data, tasks
from bptt_jax.cli._settings import Settings
from bptt_jax.types import Task

ROWS = 32
"""Sequences of a batch, where nothing else is said and there are enough."""
_SEEN = 64
"""Steps that a forecast sees, where nothing else is said and series are long enough."""
_HELD_OUT = 0.1


class Own(NamedTuple):
    """A file, and the task that is made of it."""

    dataset: data.Dataset
    task: Task


def own_of(s: Settings) -> Own:
    """What `--data`, `--target`, `--sequence`, `--time` and `--horizon` say.

    Raises:
      OSError, ValueError, MemoryError: in one line, with the file's name.
    """
    assert s.data is not None
    ahead = s.horizon is not None
    target = None if ahead else s.target
    found = data.read(s.data, target=target, sequence=s.sequence, time=s.time)
    try:
        task = _forecast(s, found) if ahead else _sequences(s, found)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{s.data}: {error}") from None
    except MemoryError as error:
        raise MemoryError(f"{s.data}: {error}") from None
    named = dict(target=s.target, sequence=s.sequence, time=s.time)
    file = dict(file=found.sha256) | {k: v for k, v in named.items() if v is not None}
    if found.features:  # by which columns of another file are found again
        file |= dict(features=list(found.features))
    task = task._replace(record=task.record | file)
    return Own(found, _by_name(task, found) if ahead else task)


def _sequences(s: Settings, found: data.Dataset) -> Task:
    if s.length is not None:
        raise ValueError("--length: sequences have lengths of their own")
    N = len(found.inputs)
    if N == 1:
        raise ValueError(
            "one sequence alone; expected at least 2: --sequence names the column that "
            "tells them apart, --horizon N forecasts a series"
        )
    batch = s.batch or min(ROWS, max(1, N // 2))
    return tasks.arrays(found.inputs, found.targets, batch=batch, held_out=_HELD_OUT)


def _forecast(s: Settings, found: data.Dataset) -> Task:
    assert s.horizon is not None
    if found.targets is not None:
        raise ValueError(
            "--horizon: a forecast is of the inputs, and the file has targets; leave out "
            "one of both"
        )
    series = found.inputs
    many = isinstance(series, list) or series.ndim > 2
    series = list(series) if many else series
    lengths = [len(one) for one in series] if many else [len(series)]
    T = s.length or max(1, min(_SEEN, min(lengths) // 3))
    known = (n - round(_HELD_OUT * n) for n in lengths)
    windows = sum(max(0, n - T - s.horizon + 1) for n in known)
    return tasks.windows(
        series, T=T, horizon=s.horizon, season=s.season, targets=_predicted(s, found),
        batch=s.batch or max(1, min(ROWS, windows)), held_out=_HELD_OUT,
    )  # fmt: skip


def _by_name(task: Task, found: data.Dataset) -> Task:
    """What MASE divides by, by the names of the series, where they have some."""
    encoding = tasks.encoding_of(task)
    if not found.sequences or encoding.naive is None:
        return task
    names, naive = map(str, found.sequences), encoding.naive.values()
    by_name = dict(zip(names, naive, strict=True))
    return task._replace(encoding=encoding._replace(naive=by_name))


def _predicted(s: Settings, found: data.Dataset) -> list[int] | None:
    """The number of the feature that is forecast; None: all of them."""
    if s.target is None:
        return None
    if s.target not in found.features:
        raise ValueError(
            f"--target {s.target}: expected one of the features, "
            f"{', '.join(found.features[:20])}"
        )
    return [found.features.index(s.target)]
