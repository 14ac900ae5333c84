"""`bptt-jax sweep`: many trainings as one program; `bptt-jax sweep show RUN`: its table."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
from rich.console import Console

import bptt_jax
from bptt_jax import progress, sweep
from bptt_jax._processes import first as first_process
from bptt_jax.cli import _build, _parse, _settings
from bptt_jax.cli._cluster import executor_of
from bptt_jax.cli._cores import use_cores
from bptt_jax.cli._interrupts import Interrupts
from bptt_jax.cli._lists import split
from bptt_jax.cli._owner import owned
from bptt_jax.cli._settings import Settings
from bptt_jax.cli._table import SHOWN, Wanted, report

TRACED = ("lr", "clip", "seed")


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
    dask: str | None = None
    """Dask's workers train: the address of its scheduler, tcp://host:8786, or the file
    that it has written."""


def command(argv: list[str]) -> int:
    if argv[:1] == ["show"]:
        return _show(argv[1:])
    first, lists = split(argv)
    said = _parse.said(argv)
    given = _settings.quick(_parse.parse(Sweep, first, "bptt-jax sweep"), said)
    _refuse(given, said)
    out = given.out or pathlib.Path("runs") / f"sweep-{_name(given)}"
    if given.dask is None:
        _devices(out)
    with owned(out), executor_of(given.dask) as executor:
        return _run(given, said, lists, out, executor)


def _run(
    given: Sweep, said: set[str], lists: dict[str, list[str]], out: pathlib.Path,
    executor: Any,
) -> int:  # fmt: skip
    space, settings = _space(given, lists)
    console = Console(highlight=False, quiet=not first_process())
    console.print(
        f"[bold]{given.text or given.data or given.task}[/bold]  {space.size:,} settings: "
        + ", ".join(f"{len(v)} × {k}" for k, v in lists.items())
        + f" -> {out}"
    )
    jobs = _Jobs(settings, _chunks_of(out))
    choices = [choice for choice, _ in sweep.groups(space)]
    each = [jobs.of(**choice) for choice in choices]
    for text in sorted(
        set(filter(None, (_build.fewer_rows(given, job.task) for job in each)))
    ):
        console.print(text)
    unit = " or ".join(sorted({_build.raw_unit(job.task) for job in each}))
    data = json.loads(json.dumps(each[0].task.record))
    _refuse_other_data(out, data)
    record = dict(
        settings=_settings.saved(settings),
        data=data,
        unit=unit,
        chunks={_label(c): job.chunk for c, job in zip(choices, each, strict=True)},
        versions=dict(bptt_jax=bptt_jax.__version__, jax=jax.__version__),
    )
    screen = progress.terminal(unit=progress.Unit(given.score or unit), console=console)
    with Interrupts(console) as interrupts:
        asked = progress.Progress(interrupted=lambda: interrupts.noted)
        result = sweep.run(
            jobs.training if space.static else jobs.training(), space, out=out,
            steps=lambda **choice: jobs.of(**choice).steps,
            evaluate_every=_every(given, said, max(job.steps for job in each)),
            executor=executor, lanes=given.lanes, keep=given.keep, record=record,
            score=given.score, maximise=given.maximise,
            halving=sweep.halving(given.halving) if given.halving else None,
            progress=progress.together(screen, asked),
        )  # fmt: skip
    if first_process():
        report(console, out, result)
    return 0


def _name(given: Sweep) -> str:
    return given.task if given.data is None else given.data.stem


def _refuse_other_data(out: pathlib.Path, data: dict[str, Any]) -> None:
    if (out / "sweep.json").exists():
        before = sweep.read_config(out).get("record", {}).get("data", data)
        if before != data:
            raise ValueError(f"{out} was made with other data; choose another --out")


def _every(given: Sweep, said: set[str], steps: int) -> int:
    """Steps between evaluations: where nothing was said, at least ten of them."""
    every = given.evaluate_every
    return every if "evaluate_every" in said else min(every, max(1, steps // 10))


class _Jobs:
    """The job of each static choice, built once."""

    def __init__(self, settings: Settings, chunks: dict[str, int | None]):
        self.settings, self.chunks = settings, chunks
        self.made: dict[frozenset, _build.Job] = {}

    def of(self, **choice: Any) -> _build.Job:
        key = frozenset(choice.items())
        if key not in self.made:
            chunk = self.chunks.get(_label(choice))
            self.made[key] = _build.job(_with(self.settings, choice), chunk)
        return self.made[key]

    def training(self, **choice: Any) -> sweep.Training:
        s, job = _with(self.settings, choice), self.of(**choice)
        return sweep.training(
            job.task, job.model, job.estimator,
            lambda lr, clip: _build.optimizer_of(s, job.steps, lr, clip),
            held_out_batches=10,
        )  # fmt: skip


def _label(choice: dict[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in sorted(choice.items()))


def _chunks_of(out: pathlib.Path) -> dict[str, int | None]:
    """The stretch lengths that a sweep has taken so far, by static choice."""
    if not (out / "sweep.json").exists():
        return {}
    return sweep.read_config(out).get("record", {}).get("chunks", {})


def _refuse(given: Sweep, said: set[str]) -> None:
    _settings.check_said(said)
    _settings.check(given)
    for name in (
        "tensorboard",
        "patience",
        "config",
        "mesh",
        "checkpoint_every",
        "init_from",
    ):
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


@dataclasses.dataclass(frozen=True)
class Show:
    """Show what a sweep has found."""

    run: _parse.Folder
    """A sweep's folder."""
    where: tuple[str, ...] = ()
    """Only settings with these values: --where cell=gru,lstm lr=0.01."""
    sort: str | None = None
    """By this option or metric, the least first; by default by what says what is best."""
    maximise: bool = False
    """The greatest first."""
    top: int = SHOWN
    """So many rows."""
    seeds: bool = False
    """Means and spreads over seeds."""


def _show(argv: list[str]) -> int:
    s = _parse.parse(Show, argv, "bptt-jax sweep show")
    if s.top < 1:
        raise ValueError(f"--top must be at least 1, got {s.top}")
    result = sweep.load(s.run)
    console = Console(highlight=False)
    for text in result.layouts:
        console.print(text, soft_wrap=True)
    report(console, s.run, result, Wanted(s.where, s.sort, s.maximise, s.top, s.seeds))
    return 0
