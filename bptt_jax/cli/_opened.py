"""A run that a command is about, and a file of data beside it."""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from bptt_jax import data, train
from bptt_jax.cli import _settings
from bptt_jax.cli._build import task_of
from bptt_jax.train import Run

WITHOUT_FILE = "name a file of data: bptt-jax eval RUN FILE"


def opened(folder: pathlib.Path) -> Run:
    """The run in a folder, of the command line or of Python.

    Raises:
      ValueError: it holds none that can be opened, in words of the command line.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    try:
        return train.load(folder)
    except ValueError as error:
        text, _, _ = str(error).partition("; hand the model in")
        text, _, _ = text.partition("; hand the task in")
        in_python = " (train.load opens it in Python)" if text != str(error) else ""
        raise ValueError(f"{text}{in_python}") from None


def with_data(folder: pathlib.Path) -> Run:
    """The run with the data that it was trained on, if they are where they were.

    Raises:
      ValueError: they are not, or are others.
    """
    run = opened(folder)
    if (folder / "config.json").exists():
        task = task_of(_settings.load(folder)[0])
        sha256 = run.config["made"]["task"].get("sha256")
        if task.record.get("sha256") != sha256:
            raise ValueError(f"{folder}: its data are others now; {WITHOUT_FILE}")
        return run._replace(task=task)
    if not train.has_data(run.task):
        raise ValueError(f"{folder}: its data are not here; {WITHOUT_FILE}")
    return run


class Given(NamedTuple):
    """Sequences of a file, as a run takes them; targets None: the file has none.

    names: of each sequence; of a window the series' it is of.
    """

    inputs: Any
    targets: Any
    names: tuple


def given(run: Run, path: pathlib.Path, **columns: str | None) -> Given:
    """A file of data with targets; columns that are not said are those of the training.

    Raises:
      OSError, ValueError: the file cannot be read, or lacks a feature of the run.
    """
    found = _read(path, _columns(run, columns, ("target", "sequence", "time")))
    inputs = _features(path, found, _record(run).get("features"))
    return Given(inputs, found.targets, _names(found))


def inputs(run: Run, path: pathlib.Path, **columns: str | None) -> Given:
    """A file of data to predict for; of a table a target is not looked at.

    Of a forecast each sequence is the end of a series. Arguments and errors as of `given`.
    """
    about = _record(run)
    features = about.get("features") if path.suffix.lower() in _TABLES else None
    known = ("sequence", "time") if features else ("target", "sequence", "time")
    named = _columns(run, columns, known) | dict(features=features)
    found = _read(path, named | (dict(target=None) if "horizon" in about else {}))
    xs, names = _features(path, found, about.get("features")), _names(found)
    if "horizon" in about:
        return _ends(path, found.inputs, xs, about, names)
    return Given(xs, None, names)


_TABLES = ".csv", ".parquet"


def _columns(run: Run, said: dict, known: tuple[str, ...]) -> dict[str, Any]:
    """Those that are said, and else those of the training."""
    about = _record(run)
    of_training = {k: about[k] for k in known if k in about}
    return of_training | {k: v for k, v in said.items() if v is not None}


def _names(found: data.Dataset) -> tuple:
    return found.sequences or tuple(range(len(found.inputs)))


def windows(run: Run, path: pathlib.Path, **columns: str | None) -> Given:
    """Of a forecast all windows of a file's series, with what came after them."""
    about = _record(run)
    T, ahead = about["T"], about["horizon"]
    found = _read(
        path, _columns(run, columns | dict(target=None), ("sequence", "time"))
    )
    inputs = _features(path, found, about.get("features"))
    xs, ys, names, outputs = [], [], [], _predicted(run, found)
    for i, series in enumerate(_series(found.inputs, inputs)):
        for start in range(len(series) - T - ahead + 1):
            xs.append(series[start : start + T])
            ys.append(series[start + T : start + T + ahead, outputs])
            names.append(str(found.sequences[i]) if found.sequences else i)
    if not xs:
        raise ValueError(f"{path}: expected a series of at least {T + ahead} steps")
    shape = run.task.encoding.shape
    return Given(np.stack(xs), np.stack(ys).reshape(len(ys), *shape), tuple(names))


def _record(run: Run) -> dict[str, Any]:
    return run.config["made"]["task"]


def _read(path: pathlib.Path, columns: dict[str, Any]) -> data.Dataset:
    """Without a target, where the file has none of its name."""
    try:
        return data.read(path, **columns)
    except ValueError as error:
        if columns.get("target") is None:
            raise
        try:
            return data.read(path, **columns | dict(target=None))
        except ValueError:
            raise error from None


def _features(path: pathlib.Path, found: data.Dataset, names: list | None) -> Any:
    """The inputs, their features in the order in which the run had them."""
    if names is None or tuple(names) == tuple(found.features):
        return found.inputs
    missing = [name for name in names if name not in found.features]
    if missing:
        raise ValueError(
            f"{path}: expected the features {', '.join(names)}; it lacks "
            f"{', '.join(missing)}"
        )
    at = [found.features.index(name) for name in names]
    if isinstance(found.inputs, list):
        return [one[:, at] for one in found.inputs]
    return np.asarray(found.inputs)[..., at]


def _series(given: Any, inputs: Any) -> list[np.ndarray]:
    many = isinstance(given, list) or np.ndim(given) > 2
    each = list(inputs) if many else [inputs]
    return [one if np.ndim(one) > 1 else np.asarray(one)[:, None] for one in each]


def _ends(path: pathlib.Path, given: Any, inputs: Any, about: dict, names) -> Given:
    T = about["T"]
    series = _series(given, inputs)
    if (least := min(map(len, series))) < T:
        raise ValueError(f"{path}: {least} steps; a forecast of this run sees {T}")
    names = names if len(names) == len(series) else tuple(range(len(series)))
    return Given(np.stack([one[-T:] for one in series]), None, names)


def _predicted(run: Run, found: data.Dataset) -> Any:
    target = _record(run).get("target")
    names = _record(run).get("features") or list(found.features)
    return slice(None) if target is None else [names.index(target)]
