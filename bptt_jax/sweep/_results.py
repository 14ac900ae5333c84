"""The table of a sweep, and its best configurations."""

import json
import math
import pathlib
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bptt_jax import _files
from bptt_jax.sweep import _store
from bptt_jax.sweep._space import Space
from bptt_jax.types import PyTree


class Best(NamedTuple):
    """A configuration that did well.

    config: its row in the space.
    score: its last held-out loss (training loss where nothing is held out), or what
        `score` of `sweep.run` names.
    values: of the space's columns.
    path: the file of its parameters; see `sweep.parameters`.
    """

    config: int
    score: float
    values: dict[str, Any]
    path: pathlib.Path


class Result(NamedTuple):
    """What a sweep has found.

    table: one row for each configuration and evaluation: `config`, the space's columns,
        `rung`, `step`, metrics (means over the steps since the evaluation before),
        `diverged_at` (the step that was not finite, or null).
    best: the best ones, the best first.
    layouts: for each static choice how it was spread.
    """

    table: pa.Table
    best: list[Best]
    layouts: list[str]


def name_of(value: Any) -> str | int | float:
    """A static choice as a table and a file have it."""
    if isinstance(value, int | float | str):
        return value
    if hasattr(value, "func"):  # functools.partial
        options = [f"{k}={name_of(v)}" for k, v in value.keywords.items()]
        return f"{name_of(value.func)}({', '.join([*map(str, value.args), *options])})"
    return getattr(value, "__name__", None) or str(value)


def columns_of(space: Space) -> dict[str, list]:
    return {k: [name_of(v) for v in values] for k, values in space.columns.items()}


def table_of(columns: dict[str, list], rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as they were written down, with the values of their configurations."""
    rows = sorted(rows, key=lambda r: (r["config"], r["at"]))
    metrics = sorted({k for r in rows for k in r["metrics"]} - {"loss"})
    made: dict[str, Any] = {"config": pa.array([r["config"] for r in rows], pa.int32())}
    for name, values in columns.items():
        made[name] = pa.array([values[r["config"]] for r in rows])
    made["rung"] = pa.array([r["rung"] for r in rows], pa.int32())
    made["step"] = pa.array([r["at"] for r in rows], pa.int32())
    for name in ["loss", *metrics]:
        each = [r["metrics"].get(name) for r in rows]
        made[name] = pa.array(each, pa.float64())
    diverged = [r["diverged_at"] if r["diverged_at"] >= 0 else None for r in rows]
    made["diverged_at"] = pa.array(diverged, pa.int32())
    return pa.table(made)


def score(row: dict[str, Any], name: str | None = None) -> float:
    """A metric; None: the held-out loss, the training loss where there is none.

    NaN: it is not finite, or the configuration has diverged.
    """
    metrics = row["metrics"]
    usual = metrics.get("held_out", metrics.get("loss"))
    value = usual if name is None else metrics.get(name)
    return math.nan if value is None or row["diverged_at"] >= 0 else value


def write(path: pathlib.Path, table: pa.Table) -> None:
    _files.replace(path, lambda new: pq.write_table(table, new))


def load(out: pathlib.Path | str) -> Result:
    """The result of a sweep that has ended, from its folder.

    Raises:
      ValueError: the folder holds no sweep, one that has not ended, or is damaged.
    """
    out = _files.path_of(out)
    config = read_config(out)
    if not (out / "results.parquet").exists():
        raise ValueError(f"{out} holds a sweep that has not ended; run it again first")
    try:
        table = pq.read_table(out / "results.parquet")
        found = json.loads((out / "best.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{out}: its results are damaged: {error}") from None
    best = [Best(**{**b, "path": out / b["path"]}) for b in found]
    return Result(table, best, config["layouts_shown"])


def read_config(out: pathlib.Path) -> dict[str, Any]:
    path = out / "sweep.json"
    if not path.exists():
        raise ValueError(f"{out} is not a sweep: it has no sweep.json")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(config, dict) or "sweep" not in config:
        raise ValueError(f"{path} is damaged: it lacks what a sweep is")
    return config


def parameters(path: pathlib.Path | str, like: PyTree) -> PyTree:
    """Parameters that a sweep has kept, in the structure of `like`.

    Args:
      path: `Best.path`.
      like: parameters of the same model, or their shapes
        (`jax.eval_shape(model.init, jax.random.key(0))`).

    Raises:
      ValueError: the file is damaged or of another model.
    """
    found, _ = _store.load(pathlib.Path(path), like)
    return _store.as_like(like, found)
