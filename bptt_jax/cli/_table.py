"""What a sweep has found: a table of the best settings, and figures."""

import functools
import math
import pathlib
from typing import Any, NamedTuple

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from bptt_jax import _files, plots, sweep

SHOWN = 10
USUAL = ("held_out", "loss")
"""Metrics that are in the unit of the task."""


class Wanted(NamedTuple):
    """What of a table is shown; see `bptt-jax sweep show`."""

    where: tuple[str, ...] = ()
    sort: str | None = None
    maximise: bool = False
    top: int = SHOWN
    seeds: bool = False


ALL = Wanted()


class Judged(NamedTuple):
    """name: of the metric that says what is best; maximise: whether more is better."""

    name: str
    maximise: bool

    def worth(self, row: dict[str, Any]) -> tuple:
        value = row[self.name]
        if value is None:
            return -row["step"], math.inf
        return -row["step"], -value if self.maximise else value


def report(
    console: Console, out: pathlib.Path, result: sweep.Result, wanted: Wanted = ALL
) -> None:
    """Shows the best settings, and writes the figures into the folder."""
    ended = _ended(result)
    names = result.table.column_names
    options = [
        k for k in names[1 : names.index("rung")] if len({row[k] for row in ended}) > 1
    ]
    config = sweep.read_config(out)
    judged = _judged(config["sweep"].get("score", ""), names)
    unit = config.get("record", {}).get("unit", "") if judged.name in USUAL else ""
    fitting = [row for row in ended if _fits(row, wanted.where, names)]
    rows = _sorted(fitting, wanted, judged, names)
    diverged = sum(row["diverged_at"] is not None for row in ended)
    failed = sum(row.get("error") is not None for row in ended)
    more = f", {failed:,} failed" if failed else ""
    console.print(f"\n{len(ended):,} settings, {diverged:,} diverged{more}")
    if wanted.seeds:
        _report_seeds(console, result, fitting, judged, wanted.top)
    else:
        console.print(_table(rows[: wanted.top], options, judged.name, unit))
        _say_how_many(console, out, rows, ended, wanted)
        _say_best_over_seeds(console, result, options, judged)
    written = _write_figures(out, ended, options, judged, unit)
    files = ", ".join(["results.parquet", "best/", *written])
    console.print(f"\n{out}: {files}", soft_wrap=True)


def _judged(score: str, names: list[str]) -> Judged:
    """What a sweep's folder says of what is best: `lowest loss`, `highest accuracy`."""
    how, _, name = score.partition(" ")
    if name in names and name != "loss":
        return Judged(name, how == "highest")
    return Judged("held_out" if "held_out" in names else "loss", False)


def _fits(row: dict[str, Any], where: tuple[str, ...], names: list[str]) -> bool:
    """Whether it has one of the values of each `name=value,value`."""
    for text in where:
        name, equals, values = text.partition("=")
        if not equals or name not in names:
            known = ", ".join(names[1 : names.index("rung")])
            raise ValueError(f"--where {text}: expected name=value of one of {known}")
        if not any(_is(row[name], value) for value in values.split(",")):
            return False
    return True


def _is(value: Any, text: str) -> bool:
    if isinstance(value, int | float):
        try:
            return math.isclose(value, float(text), rel_tol=1e-6)
        except ValueError:
            return False
    return str(value) == text


def _sorted(rows: list[dict], wanted: Wanted, judged: Judged, names: list[str]) -> list:
    if wanted.sort is None and not wanted.maximise:
        return sorted(rows, key=judged.worth)
    name = wanted.sort or judged.name
    if name not in names:
        raise ValueError(f"--sort {name}: expected one of {', '.join(names)}")
    there = [row for row in rows if row[name] is not None]
    there.sort(key=lambda row: row[name], reverse=wanted.maximise)
    return there + [row for row in rows if row[name] is None]


def _say_how_many(
    console: Console, out, rows: list, ended: list, wanted: Wanted
) -> None:
    n = min(wanted.top, len(rows))
    if len(rows) < len(ended):
        console.print(f"{n:,} of {len(rows):,} that fit, of {len(ended):,} in all")
    elif n < len(rows):
        which = "the best " if wanted.sort is None and not wanted.maximise else ""
        text = f"{which}{n:,} of {len(rows):,}; all are in {out}/results.parquet"
        console.print(text, soft_wrap=True)


def _say_best_over_seeds(console: Console, result, options: list[str], judged) -> None:
    """The best configuration, which need not be that of the best run."""
    if "seed" not in options:
        return
    first = _over_seeds(result, judged).slice(0, 1).to_pylist()[0]
    if first["mean"] is None:
        return
    named = " ".join(f"{k} {first[k]}" for k in options if k != "seed")
    spread = "" if first["std"] is None else f" ± {first['std']:.2g}"
    n = first["seeds"] - first["failed"]
    console.print(
        f"the best over seeds: {named or 'the only one'}, {judged.name} "
        f"{first['mean']:.5g}{spread} ({n} of {first['seeds']} seeds)",
        soft_wrap=True,
    )


def _over_seeds(result: sweep.Result, judged: Judged):
    return result.over_seeds(score=judged.name, maximise=judged.maximise)


def _report_seeds(console: Console, result, fitting: list, judged, top: int) -> None:
    kept = {row["config"] for row in fitting}
    where = [config in kept for config in result.table["config"].to_pylist()]
    some = result._replace(table=result.table.filter(pa.array(where)))
    found = _over_seeds(some, judged).to_pylist()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in found[0] if found else ():
        table.add_column(judged.name if name == "mean" else name, justify="right")
    for row in found[:top]:
        table.add_row(*(_shown(value) for value in row.values()))
    console.print(table)
    if len(found) > top:
        console.print(f"the best {top} of {len(found):,}")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _ended(result: sweep.Result) -> list[dict[str, Any]]:
    """The last row of each setting."""
    last = {row["config"]: row for row in result.table.to_pylist()}
    return list(last.values())


def _table(rows: list[dict], options: list[str], score: str, unit: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (*options, "steps", f"{score} ({unit})" if unit else score):
        table.add_column(name, justify="right")
    for row in rows:
        gone = "failed" if row.get("error") else "diverged"
        value = gone if row[score] is None else f"{row[score]:.5g}"
        table.add_row(*(f"{row[k]}" for k in options), f"{row['step']}", value)
    return table


def _write_figures(
    out: pathlib.Path, ended: list[dict], options: list[str], judged: Judged, unit: str
) -> list[str]:
    """Their names."""
    named = f"{judged.name}, {unit}" if unit else judged.name
    drawn = _figures(ended, options, judged, named)
    for name, figure in drawn.items():
        draw = functools.partial(figure.savefig, dpi=130, format="png")
        _files.replace(out / name, draw)
    return list(drawn)


def _figures(
    ended: list[dict], options: list[str], judged: Judged, named: str
) -> dict[str, Any]:
    """Name of a file -> figure: over each of the first numbers, and over all options."""
    score = judged.name
    how: dict[str, Any] = dict(unit=named, maximise=judged.maximise)
    columns = {k: [row[k] for row in ended] for k in options}
    scores = [math.nan if row[score] is None else row[score] for row in ended]
    numbers = [
        k for k in options if k != "seed" and isinstance(columns[k][0], int | float)
    ]
    lines = [k for k in options if k not in numbers and k != "seed"]
    drawn = {}
    if numbers:
        drawn[f"{score}-{numbers[0]}.png"] = plots.against(
            columns[numbers[0]], scores, label=numbers[0],
            by=[" ".join(str(columns[k][i]) for k in lines) for i in range(len(ended))],
            **how,
        )  # fmt: skip
    if len(numbers) > 1:
        drawn[f"{score}-{numbers[0]}-{numbers[1]}.png"] = plots.heat_map(
            columns[numbers[0]], columns[numbers[1]], scores,
            labels=(numbers[0], numbers[1]), **how,
        )  # fmt: skip
    if len(options) > 1:
        drawn["parallel.png"] = plots.parallel_coordinates(columns, scores, **how)
    return drawn
