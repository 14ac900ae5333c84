"""`bptt-jax sweep`: many trainings as one program; `bptt-jax sweep show RUN`: its table."""

import dataclasses
import functools
import math
import pathlib
import re
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import bptt_jax
from bptt_jax import _files, plots, sweep
from bptt_jax._processes import first as first_process
from bptt_jax.cli import _build, _parse, _settings
from bptt_jax.cli._cores import use_cores
from bptt_jax.cli._interrupts import Interrupts
from bptt_jax.cli._owner import owned
from bptt_jax.cli._settings import Settings

TRACED = ("lr", "clip", "seed")
SINGLE = (
    "text", "quick", "tensorboard", "out", "config", "patience", "evaluate_every",
    "checkpoint_every", "epochs", "remat", "mesh",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sweep(Settings):
    """Train a network for each of many settings, as few compiled programs.

    Every option of `bptt-jax train` is there. A value may be a list, 0.1,0.01 (or
    lstm,gru), a range of whole numbers, 0:8 (0 to 7), or n numbers from a to b,
    1e-4:1e-1:log:16 or 0.1:0.9:lin:5. The same command again continues a sweep that was
    stopped. `bptt-jax sweep show RUN` shows what one has found.
    """

    halving: int | None = None
    """Successive halving: of each rung the best one in so many goes on."""
    lanes: int | None = None
    """Settings on a device at a time; by default measured."""
    keep: int = 3
    """Of how many of the best the parameters are kept."""


def command(argv: list[str]) -> int:
    if argv[:1] == ["show"]:
        return _show(argv[1:])
    first, lists = split(argv)
    said = _parse.said(argv)
    given = _settings.quick(_parse.parse(Sweep, first, "bptt-jax sweep"), said)
    _refuse(given, said)
    out = given.out or pathlib.Path("runs") / f"sweep-{given.task}"
    _devices(out)
    with owned(out):
        return _run(given, said, lists, out)


def _run(
    given: Sweep, said: set[str], lists: dict[str, list[str]], out: pathlib.Path
) -> int:
    space, settings = _space(given, lists)
    console = Console(highlight=False, quiet=not first_process())
    console.print(
        f"[bold]{given.text or given.task}[/bold]  {space.size:,} settings: "
        + ", ".join(f"{len(v)} × {k}" for k, v in lists.items())
        + f" -> {out}"
    )
    jobs: dict[frozenset, _build.Job] = {}
    chunks = _chunks_of(out)

    def of(**choice) -> _build.Job:
        key = frozenset(choice.items())
        if key not in jobs:
            chunk = chunks.get(_label(choice))
            jobs[key] = _build.job(_with(settings, choice), chunk)
        return jobs[key]

    def training(**choice) -> sweep.Training:
        s, job = _with(settings, choice), of(**choice)
        return sweep.training(
            job.task, job.model, job.estimator,
            lambda lr, clip: _build.optimizer_of(s, job.steps, lr, clip),
            held_out_batches=10,
        )  # fmt: skip

    steps = max(of(**choice).steps for choice, _ in sweep.groups(space))
    tasks = [of(**choice).task for choice, _ in sweep.groups(space)]
    for text in sorted(set(filter(None, (_build.fewer_rows(given, t) for t in tasks)))):
        console.print(text)
    unit = " or ".join(sorted({_build.raw_unit(task) for task in tasks}))
    every = given.evaluate_every
    if "evaluate_every" not in said:
        every = min(every, max(1, steps // 10))
    record = dict(
        settings=_settings.saved(settings),
        unit=unit,
        chunks={_label(c): of(**c).chunk for c, _ in sweep.groups(space)},
        versions=dict(bptt_jax=bptt_jax.__version__, jax=jax.__version__),
    )
    with (
        Interrupts(console) as interrupts,
        _Screen(console, interrupts, unit) as screen,
    ):
        result = sweep.run(
            training if space.static else training(), space, out=out,
            steps=lambda **choice: of(**choice).steps,
            evaluate_every=every, lanes=given.lanes, keep=given.keep, record=record,
            halving=sweep.halving(given.halving) if given.halving else None,
            progress=screen.progress,
        )  # fmt: skip
    if first_process():
        _report(console, out, result)
    return 0


def _label(choice: dict[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in sorted(choice.items()))


def _chunks_of(out: pathlib.Path) -> dict[str, int | None]:
    """The stretch lengths that a sweep has taken so far, by static choice."""
    if not (out / "sweep.json").exists():
        return {}
    return sweep.read_config(out).get("record", {}).get("chunks", {})


def split(argv: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The arguments with the first of each list, and the lists by option."""
    first, lists, name = [], {}, None
    fields = {f.name for f in dataclasses.fields(Settings)}
    for word in argv:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            name = option[2:].replace("-", "_")
            if equals and name in fields and name not in SINGLE:
                values = _values(name, value)
                lists |= {name: values} if len(values) > 1 else {}
                word = f"{option}={values[0]}"
            elif equals and name in SINGLE:
                _refuse_list(name, value)
        elif name in fields and name not in SINGLE:
            values = _values(name, word)
            lists |= {name: values} if len(values) > 1 else {}
            word = values[0]
        elif name in fields:
            _refuse_list(name, word)
        first.append(word)
    return first, lists


def _refuse_list(name: str, word: str) -> None:
    """Names of files may have commas and colons; other single values not."""
    if name in ("text", "out", "config"):
        return
    if "," in word or re.search(r"\d:\d", word):
        raise ValueError(f"--{name.replace('_', '-')} takes one value, got {word}")


def _values(name: str, text: str) -> list[str]:
    """`0:8`, `1e-4:1e-1:log:16`, `0.1:0.9:lin:5`, `a,b,c`, or one value."""
    option = f"--{name.replace('_', '-')} {text}"
    if "," in text:
        values = [v for part in text.split(",") for v in _values(name, part)]
        if len(set(values)) < len(values):
            raise ValueError(f"{option}: a value more than once")
        return values
    parts = text.split(":")
    if len(parts) == 1:
        if not text:
            raise ValueError(f"{option}: an empty value")
        return [text]
    try:
        if len(parts) == 2:
            low, high = map(int, parts)
            if not low < high:
                raise ValueError
            return [str(i) for i in range(low, high)]
        low, high, n = float(parts[0]), float(parts[1]), int(parts[3])
        spaced = dict(log=_log, lin=_lin)[parts[2]]
        if n < 2 or len(parts) > 4:
            raise ValueError
        return [repr(v) for v in spaced(low, high, n)]
    except (ValueError, KeyError, IndexError):
        raise ValueError(
            f"{option}: expected a list a,b,c, a range 0:8, or low:high:log:n "
            "(or lin) with n of at least 2"
        ) from None


def _log(low: float, high: float, n: int) -> list[float]:
    if not (low > 0 and high > 0):
        raise ValueError
    return [float(f"{low * (high / low) ** (i / (n - 1)):.6g}") for i in range(n)]


def _lin(low: float, high: float, n: int) -> list[float]:
    return [float(f"{low + (high - low) * i / (n - 1):.6g}") for i in range(n)]


def _refuse(given: Sweep, said: set[str]) -> None:
    _settings.check_said(said)
    _settings.check(given)
    for name in ("tensorboard", "patience", "config", "mesh", "checkpoint_every"):
        if name in said:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is of bptt-jax train alone")
    for name in ("lanes", "keep"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    if given.halving is not None and given.halving < 2:
        raise ValueError(f"--halving must be at least 2, got {given.halving}")


def _devices(out: pathlib.Path) -> None:
    """As many CPU devices as cores, or as the sweep was begun with."""
    begun = (out / "sweep.json").exists()
    use_cores(sweep.read_config(out)["devices"] if begun else None)


def _space(given: Sweep, lists: dict[str, list[str]]) -> tuple[sweep.Space, Settings]:
    """The settings of the sweep as a space, and those that all have."""
    common = Settings(
        **{f.name: getattr(given, f.name) for f in dataclasses.fields(Settings)}
    )
    typed = {name: [_typed(name, v) for v in values] for name, values in lists.items()}
    static = {k: v for k, v in typed.items() if k not in TRACED}
    task = _build.task_of(common)
    alone = dict(lr=_build.lr_of(common, task), clip=common.clip, seed=common.seed)
    traced = {name: typed.get(name, [alone[name]]) for name in TRACED}
    grid = sweep.grid(**traced)
    space = sweep.product(sweep.static(**static), grid) if static else grid
    for choice, _ in sweep.groups(space):
        s = _with(common, choice)
        _settings.check(s)
        _build.check_names(s)
    for i in range(space.size):
        row = space.row(i)
        _settings.check(dataclasses.replace(common, **{k: row[k] for k in TRACED}))
    return space, common


def _typed(name: str, value: str) -> Any:
    option = f"--{name.replace('_', '-')}"
    return getattr(_parse.parse(Settings, [option, value], "bptt-jax sweep"), name)


def _with(s: Settings, choice: dict[str, Any]) -> Settings:
    return dataclasses.replace(s, **choice)


class _Screen:
    """The progress bar; on no terminal a line for each tenth."""

    def __init__(self, console: Console, interrupts: Interrupts, unit: str):
        self.console, self.tenth, self.unit = console, 0, unit
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(),
            TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn(),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.row = self.bar.add_task("measuring and compiling", total=None)
        self.progress = sweep.Progress(
            lambda text: console.print(text, soft_wrap=True),
            self.advanced,
            lambda: interrupts.noted,
        )

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *error):
        self.bar.stop()

    def advanced(self, status: sweep.Status) -> None:
        best = f", best {status.best[0]:.4g} {self.unit}" if status.best else ""
        text = f"{status.alive:,} alive{best}"
        self.bar.update(
            self.row, completed=status.done, total=status.total, description=text
        )
        tenth = 10 * status.done // max(1, status.total)
        if tenth > self.tenth and not self.console.is_terminal:
            self.tenth = tenth
            self.console.print(f"{10 * tenth:3} %  {text}")


def _report(console: Console, out: pathlib.Path, result: sweep.Result) -> None:
    ended = ended_rows(result)
    diverged = sum(row["diverged_at"] is not None for row in ended)
    console.print(f"\n{len(ended):,} settings, {diverged:,} diverged")
    names = [k for k in result.table.column_names if k not in _NOT_SHOWN]
    score = "held_out" if "held_out" in names else "loss"
    options = [
        k
        for k in names[: names.index("rung")]
        if k != "config" and len({row[k] for row in ended}) > 1
    ]
    table = Table(box=None, pad_edge=False, header_style="bold")
    unit = sweep.read_config(out).get("record", {}).get("unit", "")
    for name in (*options, "steps", f"{score} ({unit})" if unit else score):
        table.add_column(name, justify="right")
    for row in sorted(ended, key=lambda r: _worth(r, score))[:SHOWN]:
        value = "diverged" if row[score] is None else f"{row[score]:.5g}"
        table.add_row(*(f"{row[k]}" for k in options), f"{row['step']}", value)
    console.print(table)
    if len(ended) > SHOWN:
        console.print(
            f"the best {SHOWN} of {len(ended):,}; all are in {out}/results.parquet",
            soft_wrap=True,
        )
    written = figures(out, result, options, score, unit)
    files = ", ".join(["results.parquet", "best/", *written])
    console.print(f"\n{out}: {files}", soft_wrap=True)


SHOWN = 10
_NOT_SHOWN = ("grad_norm", "update_norm")


def ended_rows(result: sweep.Result) -> list[dict[str, Any]]:
    """The last row of each setting."""
    last = {row["config"]: row for row in result.table.to_pylist()}
    return list(last.values())


def _worth(row: dict[str, Any], score: str) -> tuple:
    return -row["step"], math.inf if row[score] is None else row[score]


def figures(
    out: pathlib.Path,
    result: sweep.Result,
    options: list[str],
    score: str,
    unit: str = "",
) -> list[str]:
    rows = ended_rows(result)
    varied = [k for k in options if len({row[k] for row in rows}) > 1]
    columns = {k: [row[k] for row in rows] for k in varied}
    scores = [math.nan if row[score] is None else row[score] for row in rows]
    numbers = [
        k for k in varied if k != "seed" and isinstance(columns[k][0], int | float)
    ]
    lines = [k for k in varied if k not in numbers and k != "seed"]
    drawn, named = {}, f"{score}, {unit}" if unit else score
    if numbers:
        drawn[f"{score}-{numbers[0]}.png"] = plots.against(
            columns[numbers[0]], scores, label=numbers[0], unit=named,
            by=[" ".join(str(columns[k][i]) for k in lines) for i in range(len(rows))],
        )  # fmt: skip
    if len(numbers) > 1:
        drawn[f"{score}-{numbers[0]}-{numbers[1]}.png"] = plots.heat_map(
            columns[numbers[0]], columns[numbers[1]], scores,
            labels=(numbers[0], numbers[1]), unit=named,
        )  # fmt: skip
    if len(varied) > 1:
        drawn["parallel.png"] = plots.parallel_coordinates(columns, scores, unit=named)
    for name, figure in drawn.items():
        draw = functools.partial(figure.savefig, dpi=130, format="png")
        _files.replace(out / name, draw)
    return list(drawn)


@dataclasses.dataclass(frozen=True)
class Show:
    """Show what a sweep has found."""

    run: _parse.Folder
    """A sweep's folder."""


def _show(argv: list[str]) -> int:
    s = _parse.parse(Show, argv, "bptt-jax sweep show")
    result = sweep.load(s.run)
    console = Console(highlight=False)
    for text in result.layouts:
        console.print(text, soft_wrap=True)
    _report(console, s.run, result)
    return 0
