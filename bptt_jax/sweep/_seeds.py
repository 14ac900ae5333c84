"""Configurations over their seeds: means and spreads of where they ended."""

import statistics
from typing import Any

import pyarrow as pa

from bptt_jax._score import refuse_unknown, score_of

NO_METRICS = ("step", "diverged_at", "hardware", "error")


def over_seeds(table: pa.Table, score: str | None, maximise: bool) -> pa.Table:
    """See `Result.over_seeds`."""
    best, names = score_of(score, maximise), table.column_names
    cut = names.index("rung")
    metrics = [name for name in names[cut + 1 :] if name not in NO_METRICS]
    refuse_unknown(best, metrics)
    name = score or usual(names)
    options = [option for option in names[1:cut] if option != "seed"]
    found = [
        dict(zip(options, key, strict=True)) | _spread(rows, name)
        for key, rows in _apart(table, options).items()
    ]
    found.sort(key=lambda row: (-row["step"], row["failed"], best.worth(row["mean"])))
    columns = {k: pa.array([row[k] for row in found], t) for k, t in KINDS.items()}
    first = {k: pa.array([row[k] for row in found], table[k].type) for k in options}
    return pa.table(first | columns)


KINDS = dict(
    step=pa.int32(), seeds=pa.int32(), failed=pa.int32(), mean=pa.float64(),
    std=pa.float64(), least=pa.float64(), most=pa.float64(),
)  # fmt: skip


def usual(names: list[str]) -> str:
    """The metric by which a sweep is judged where nothing is said."""
    return "held_out" if "held_out" in names else "loss"


def last_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Of each configuration."""
    return list({row["config"]: row for row in table.to_pylist()}.values())


def _apart(table: pa.Table, options: list[str]) -> dict[tuple, list[dict[str, Any]]]:
    found: dict[tuple, list[dict[str, Any]]] = {}
    for row in last_rows(table):
        found.setdefault(tuple(row[k] for k in options), []).append(row)
    return found


def _spread(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    step = max(row["step"] for row in rows)
    there = [row[name] for row in rows if row["step"] == step]
    values = [value for value in there if value is not None]
    return dict(
        step=step,
        seeds=len(rows),
        failed=len(rows) - len(values),
        mean=statistics.fmean(values) if values else None,
        std=statistics.stdev(values) if len(values) > 1 else None,
        least=min(values, default=None),
        most=max(values, default=None),
    )
