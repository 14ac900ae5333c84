"""The table of a sweep, and its best configurations."""

import itertools
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bptt_jax import _files, train
from bptt_jax.sweep import _seeds, _store
from bptt_jax.sweep._space import Space
from bptt_jax.types import Cell, Layer, PyTree, Task

PART = 10_000
"""Rows that are read at a time."""


class Best(NamedTuple):
    """A configuration that did well.

    config: its row in the space.
    score: its last held-out loss (training loss where nothing is held out), or what
        `score` of `sweep.run` names.
    values: of the space's columns.
    path: the file of its parameters; see `sweep.parameters`.
    choice: the number of its static choice (see `sweep.groups`).
    """

    config: int
    score: float
    values: dict[str, Any]
    path: pathlib.Path
    choice: int = 0

    def load(
        self,
        *,
        model: Layer | Cell | None = None,
        task: Task | None = None,
        tokenizer: Any = None,
    ) -> train.Run:
        """A run, as `train.load` gives it: it predicts, evaluates, is exported.

        Args:
          model, task, tokenizer: as of `train.load`, where `sweep.json` does not say them.

        Raises:
          ValueError: the sweep's training was not made by `sweep.training`, or a file is
            damaged.

        >>> import tempfile, numpy as np, optax
        >>> from bptt_jax import cells, estimators, models, sweep, tasks
        >>> waves = np.sin(np.arange(20)[:, None] * np.linspace(0.1, 1, 30)).T
        >>> task = tasks.arrays(waves, np.arange(30) > 15, batch=9)
        >>> model = models.features((cells.gru(task.n_in, 4),), task.n_out, 4)
        >>> one = sweep.training(task, model, estimators.exact(model, task.objective),
        ...                      lambda lr: optax.adam(lr))
        >>> found = sweep.run(one, sweep.grid(lr=[0.1, 0.01]), steps=4, lanes=1,
        ...                   out=tempfile.mkdtemp())
        >>> found.best[0].load().predict(waves[:3]).shape
        (3,)
        """
        where = self.path.parent.parent / "sweep.json"
        config = read_config(where.parent)
        each = config.get("trainings", [])
        saved = each[self.choice] if self.choice < len(each) else None
        if saved is None:
            raise ValueError(
                f"{where} does not say which model was trained on which task; expected a "
                "training of sweep.training (sweep.parameters reads parameters alone)"
            )
        made = dict(seed=self.values.get("seed", 0), **saved["made"])
        row = _last_row(where.parent, self.config)
        told = {k: v for k, v in row.items() if isinstance(v, float)}
        told["loss"] = told.pop("held_out", told["loss"])

        def params(model):
            like = jax.eval_shape(model.init, jax.random.key(0))
            return jax.tree.map(jnp.asarray, parameters(self.path, like))

        metrics = {k: told[k] for k in told if k not in self.values}
        saved = saved | dict(made=made, settings=self.values)
        return train.found(
            saved, where, params, row["step"], metrics,
            model=model, task=task, tokenizer=tokenizer,
        )  # fmt: skip


class Result(NamedTuple):
    """What a sweep has found.

    table: one row for each configuration and evaluation: `config`, the space's columns,
        `rung`, `step`, metrics (means over the steps since the evaluation before),
        `diverged_at` (the step that was not finite, or null). Of a sweep over an executor
        also `hardware`, where groups ran on unlike devices, and `error` of configurations
        that failed, where some did.
    best: the best ones, the best first.
    layouts: for each static choice how it was spread.
    """

    table: pa.Table
    best: list[Best]
    layouts: list[str]

    def over_seeds(
        self, *, score: str | None = None, maximise: bool = False
    ) -> pa.Table:
        """Configurations that differ in more than their seed, the best first.

        Args:
          score: a metric of the table; None: the held-out loss, the training loss where
            there is none.
          maximise: whether more is better.

        Returns:
          A row for each: the columns of the space without `seed`, `step` (the last that
          one of its seeds reached), `seeds` (how many), `failed` (how many have no figure
          there: they diverged, failed, or were given up before), and `mean`, `std` (of
          the sample, null of one), `least`, `most` of the others. Those that came furthest
          are first, of these those with the fewest failures, then by their mean.

        Raises:
          ValueError: there is no such metric.

        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> from bptt_jax import sweep
        >>> def descent(config, key):
        ...     step = lambda x: (x + config["lr"] * (1 - x), dict(loss=(1 - x) ** 2))
        ...     return jnp.zeros(()), step
        >>> found = sweep.run(descent, sweep.grid(lr=[0.1, 0.3], seed=range(2)), steps=4,
        ...                   lanes=1, out=tempfile.mkdtemp())
        >>> found.over_seeds().select(["lr", "seeds", "failed"]).to_pylist()[0]
        {'lr': 0.3, 'seeds': 2, 'failed': 0}
        """
        return _seeds.over_seeds(self.table, score, maximise)


def name_of(value: Any) -> str | int | float:
    """A static choice as a table and a file have it."""
    if isinstance(value, int | float | str):
        return value
    if hasattr(value, "func"):  # functools.partial
        options = [f"{k}={name_of(v)}" for k, v in value.keywords.items()]
        return f"{name_of(value.func)}({', '.join([*map(str, value.args), *options])})"
    return getattr(value, "__name__", None) or str(value)


def layout_shown(values: dict[str, Any], layout: Any) -> str:
    """Of a static choice, by its values."""
    named = ", ".join(f"{k} {name_of(v)}" for k, v in values.items())
    return f"{named}: {layout}" if named else str(layout)


def columns_of(space: Space) -> dict[str, list]:
    return {k: [name_of(v) for v in values] for k, values in space.columns.items()}


def table_of(columns: dict[str, list], rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as they were written down, with the values of their configurations."""
    rows = sorted(rows, key=lambda r: (r["config"], r["at"]))
    metrics = sorted({k for r in rows for k in r["metrics"]} - {"loss"})
    made: dict[str, Any] = {"config": pa.array([r["config"] for r in rows], pa.int32())}
    for name, values in columns.items():
        kind = pa.array(values).type  # of all: some of them may be whole by chance
        made[name] = pa.array([values[r["config"]] for r in rows], kind)
    made["rung"] = pa.array([r["rung"] for r in rows], pa.int32())
    made["step"] = pa.array([r["at"] for r in rows], pa.int32())
    for name in ["loss", *metrics]:
        each = [r["metrics"].get(name) for r in rows]
        made[name] = pa.array(each, pa.float64())
    diverged = [r["diverged_at"] if r["diverged_at"] >= 0 else None for r in rows]
    made["diverged_at"] = pa.array(diverged, pa.int32())
    for name in ("hardware", "error"):
        made[name] = pa.array([r.get(name) for r in rows], pa.string())
    return pa.table(made)


def table_from(columns: dict[str, list], path: pathlib.Path) -> pa.Table:
    """The table of a file of rows, of which a part is in memory as text at a time."""
    with path.open() as file:
        parts = []
        while lines := list(itertools.islice(file, PART)):
            parts.append(table_of(columns, [json.loads(line) for line in lines]))
    found = pa.concat_tables(parts, promote_options="default")
    found = found.sort_by([("config", "ascending"), ("step", "ascending")])
    metrics = sorted(set(found.column_names) - set(_named(columns)))
    return only_told(found.select(_named(columns, metrics)).combine_chunks())


def _named(columns: dict[str, list], metrics: Sequence[str] = ()) -> list[str]:
    """The columns of a table in their order."""
    first, last = ["config", *columns, "rung", "step", "loss"], ["diverged_at"]
    return [*first, *metrics, *last, "hardware", "error"]


def only_told(table: pa.Table) -> pa.Table:
    """Without what is alike in all rows: hardware of one kind, errors of none."""
    if len(table["hardware"].drop_null().unique()) < 2:
        table = table.drop_columns("hardware")
    if table["error"].null_count == table.num_rows:
        table = table.drop_columns("error")
    return table


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


def _last_row(out: pathlib.Path, config: int) -> dict[str, Any]:
    """Of a configuration, in the table."""
    table = load(out).table
    table = table.filter(pc.field("config") == config)
    return table.slice(table.num_rows - 1).to_pylist()[0]


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
