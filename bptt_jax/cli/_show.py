"""`bptt-jax show RUN…`: all about one run, or several side by side and in a figure."""

import dataclasses
import functools
import json
import math
import pathlib
import re
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from bptt_jax import _files, plots, recipes, train
from bptt_jax.cli._parse import parse


@dataclasses.dataclass(frozen=True)
class Show:
    """Tell all about a run; of several a table, and a figure of their held-out losses."""

    runs: Annotated[
        tuple[pathlib.Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")
    ]
    """Folders of runs."""
    figure: Annotated[pathlib.Path, tyro.conf.arg(metavar="FILE")] = pathlib.Path(
        "runs.png"
    )
    """Of several runs: where their figure is written."""


class Told(NamedTuple):
    """What a run's folder says of it, without its checkpoints.

    record: `run.json`.
    settings: of the command line; empty of Python.
    lines: of `metrics.jsonl`.
    """

    folder: pathlib.Path
    record: dict[str, Any]
    settings: dict[str, Any]
    lines: list[dict[str, Any]]

    @property
    def end(self) -> dict[str, Any]:
        """The line of the end; empty where it has not ended."""
        ended = [line for line in self.lines if "final_held_out" in line]
        return ended[-1] if ended else {}

    @property
    def position(self) -> int:
        return max((line["step"] for line in self.lines), default=0)

    def held_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps and losses of its evaluations."""
        found = [x for x in self.lines if "held_out" in x]
        return (
            np.array([x["step"] for x in found]),
            np.array([x["held_out"] for x in found], float),
        )

    @property
    def best(self) -> float:
        """The least held-out loss, over as many batches as there are of it."""
        if self.end:
            return self.end["best_held_out"]
        return float(np.min(self.held_out()[1], initial=math.inf))


def command(argv: list[str]) -> int:
    s = parse(Show, argv, "bptt-jax show")
    if not s.runs:
        raise ValueError("name a run's folder: bptt-jax show RUN")
    if len({path.resolve() for path in s.runs}) < len(s.runs):
        raise ValueError("a run is named twice")
    told = [_told(path) for path in s.runs]
    console = Console(highlight=False)
    if len(told) == 1:
        for line in _about(told[0]):
            console.print(line, soft_wrap=True, markup=False)
        return 0
    console.print(_table(told))
    draw = functools.partial(_figure(told).savefig, dpi=130, format="png")
    _files.replace(s.figure, draw)
    console.print(f"\n{s.figure}: held-out loss over steps", soft_wrap=True)
    return 0


def _told(folder: pathlib.Path) -> Told:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    record = train.record(folder)
    if record is None:
        raise ValueError(f"{folder} holds no run")
    lines = train.MetricsFile(folder / "metrics.jsonl").lines()
    return Told(folder, record, record.get("settings", {}), lines)


def _about(told: Told) -> list[str]:
    record, made = told.record, told.record["made"]
    of_task = {k: v for k, v in made["task"].items() if k != "features"}
    found = [
        f"{told.folder}",
        f"model: {_model(record)}",
        f"parameters: {_parameters(record):,}",
        f"task: {_listed(of_task)}",
        *_classes(record),
        f"seed: {made['seed']}",
        f"options: {_listed(made['plan'])}",
        f"updates: {told.position:,} of {record['steps']:,}",
        *_figures(told),
        f"versions: {_listed(record['versions'])}",
    ]
    if told.settings:
        said = {k: v for k, v in told.settings.items() if v not in (None, False)}
        found.append(f"settings: {_listed(said)}")
    for part in record["earlier"]:
        versions = _listed(part["versions"])
        found.append(f"until step {part['until']:,}: {versions}")
    here = sorted(path.name for path in told.folder.iterdir())
    return [*found, f"files: {', '.join(here)}"]


def _listed(values: dict[str, Any]) -> str:
    shown = {k: v for k, v in values.items() if v is not None}
    return ", ".join(f"{k} {_short(v)}" for k, v in shown.items())


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{40,}", text) else text


def _model(record: dict[str, Any]) -> str:
    found = record.get("model")
    if found is None:
        return "not written down (an older version's)"
    if "own" in found:
        return f"not written down: {found['own']}"
    try:
        return repr(recipes.read(found))
    except ValueError as error:
        return f"cannot be made here: {error}"


def _parameters(record: dict[str, Any]) -> int:
    """By the shapes, "float32[8, 32]"."""
    try:
        shapes = record["program"]["shapes"].values()
        return sum(math.prod(json.loads(s[s.index("[") :])) for s in shapes)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError("run.json is damaged: program: expected shapes") from None


def _classes(record: dict[str, Any]) -> list[str]:
    try:
        classes = record["about"]["encoding"]["classes"]
    except (KeyError, TypeError):  # an older version's; of a task without an encoding
        return []
    if not isinstance(classes, list):
        return []
    shown = ", ".join(map(str, classes[:20])) + ", …" * (len(classes) > 20)
    return [f"classes: {len(classes)}: {shown}"]


def _figures(told: Told) -> list[str]:
    end = told.end
    if not end and not math.isfinite(told.best):
        return ["held-out loss: not evaluated yet"]
    if not end:
        return [f"held-out loss: {told.best:.4g} at best; it has not ended"]
    best = f"held-out loss: {end['best_held_out']:.4g} at step {end['best_step']:,}, the best"
    if end["best_step"] != end["step"]:
        best += f"; {end['final_held_out']:.4g} at step {end['step']:,}, the last"
    others = end.get("best_metrics", {})
    return [best, *(f"{name}: {_number(value)}" for name, value in others.items())]


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _table(told: list[Told]) -> Table:
    metrics = dict.fromkeys(n for one in told for n in one.end.get("best_metrics", {}))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run")
    for name in ("parameters", "updates", "held-out loss", *metrics):
        table.add_column(name, justify="right")
    for one in sorted(told, key=lambda one: one.best):
        others = one.end.get("best_metrics", {})
        table.add_row(
            str(one.folder),
            f"{_parameters(one.record):,}",
            f"{one.position:,}",
            _number(one.best) if math.isfinite(one.best) else "",
            *(_number(others[n]) if n in others else "" for n in metrics),
        )
    return table


def _figure(told: list[Told]) -> Any:
    series = {}
    for one in told:
        steps, losses = one.held_out()
        if one.end:
            steps = np.append(steps, one.end["step"])
            losses = np.append(losses, one.end["final_held_out"])
        if len(steps):
            series[str(one.folder)] = steps, losses
    if not series:
        raise ValueError("none of these runs has been evaluated yet")
    return plots.curves(series, label="step", unit="held-out loss per step")
