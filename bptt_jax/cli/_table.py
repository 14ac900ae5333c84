"""What a sweep has found: a table of the best settings, and figures."""

import functools
import math
import pathlib
from typing import Any

from rich.console import Console
from rich.table import Table

from bptt_jax import _files, plots, sweep

SHOWN = 10
_NOT_SHOWN = ("grad_norm", "update_norm")


def report(console: Console, out: pathlib.Path, result: sweep.Result) -> None:
    """Shows the best settings, and writes the figures into the folder."""
    ended = _ended(result)
    diverged = sum(row["diverged_at"] is not None for row in ended)
    console.print(f"\n{len(ended):,} settings, {diverged:,} diverged")
    names = [k for k in result.table.column_names if k not in _NOT_SHOWN]
    score = "held_out" if "held_out" in names else "loss"
    options = [
        k
        for k in names[: names.index("rung")]
        if k != "config" and len({row[k] for row in ended}) > 1
    ]
    unit = sweep.read_config(out).get("record", {}).get("unit", "")
    console.print(_table(ended, options, score, unit))
    if len(ended) > SHOWN:
        console.print(
            f"the best {SHOWN} of {len(ended):,}; all are in {out}/results.parquet",
            soft_wrap=True,
        )
    written = _write_figures(out, ended, options, score, unit)
    files = ", ".join(["results.parquet", "best/", *written])
    console.print(f"\n{out}: {files}", soft_wrap=True)


def _ended(result: sweep.Result) -> list[dict[str, Any]]:
    """The last row of each setting."""
    last = {row["config"]: row for row in result.table.to_pylist()}
    return list(last.values())


def _table(ended: list[dict], options: list[str], score: str, unit: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (*options, "steps", f"{score} ({unit})" if unit else score):
        table.add_column(name, justify="right")
    for row in sorted(ended, key=lambda r: _worth(r, score))[:SHOWN]:
        value = "diverged" if row[score] is None else f"{row[score]:.5g}"
        table.add_row(*(f"{row[k]}" for k in options), f"{row['step']}", value)
    return table


def _worth(row: dict[str, Any], score: str) -> tuple:
    return -row["step"], math.inf if row[score] is None else row[score]


def _write_figures(
    out: pathlib.Path, ended: list[dict], options: list[str], score: str, unit: str
) -> list[str]:
    """Their names."""
    named = f"{score}, {unit}" if unit else score
    drawn = _figures(ended, options, score, named)
    for name, figure in drawn.items():
        draw = functools.partial(figure.savefig, dpi=130, format="png")
        _files.replace(out / name, draw)
    return list(drawn)


def _figures(
    ended: list[dict], options: list[str], score: str, named: str
) -> dict[str, Any]:
    """Name of a file -> figure: over each of the first numbers, and over all options."""
    columns = {k: [row[k] for row in ended] for k in options}
    scores = [math.nan if row[score] is None else row[score] for row in ended]
    numbers = [
        k for k in options if k != "seed" and isinstance(columns[k][0], int | float)
    ]
    lines = [k for k in options if k not in numbers and k != "seed"]
    drawn = {}
    if numbers:
        drawn[f"{score}-{numbers[0]}.png"] = plots.against(
            columns[numbers[0]], scores, label=numbers[0], unit=named,
            by=[" ".join(str(columns[k][i]) for k in lines) for i in range(len(ended))],
        )  # fmt: skip
    if len(numbers) > 1:
        drawn[f"{score}-{numbers[0]}-{numbers[1]}.png"] = plots.heat_map(
            columns[numbers[0]], columns[numbers[1]], scores,
            labels=(numbers[0], numbers[1]), unit=named,
        )  # fmt: skip
    if len(options) > 1:
        drawn["parallel.png"] = plots.parallel_coordinates(columns, scores, unit=named)
    return drawn
