"""`bptt-jax eval RUN [FILE]`: what a trained network is worth."""

import dataclasses
import pathlib
from typing import Annotated

import tyro

from bptt_jax import tasks, train
from bptt_jax.cli._opened import given, opened, windows, with_data
from bptt_jax.cli._parse import Folder, parse
from bptt_jax.train import Run


@dataclasses.dataclass(frozen=True)
class Eval:
    """Tell the figures of a trained network: on what its training held out, or on a file."""

    run: Folder
    """A run's folder."""
    file: Annotated[
        pathlib.Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")
    ] = None
    """A .csv, .parquet, .npy, .npz or .ts file with targets; by default the held-out data."""
    target: str | None = None
    """The column of targets; by default as in training."""
    sequence: str | None = None
    """The column that names the sequence of a row; by default as in training."""
    time: str | None = None
    """The column that orders the rows of a sequence; by default as in training."""


def command(argv: list[str]) -> int:
    s = parse(Eval, argv, "bptt-jax eval")
    run, figures, where = _of_held_out(s) if s.file is None else _of_file(s, s.file)
    print(f"step {run.best.position:,} of {s.run}, {where}:")
    for name, figure in figures.items():
        print(f"{name}: {figure:.4g}")
    if "horizon" in run.config["made"]["task"] and "MASE" not in figures:
        print(_WITHOUT)
    return 0


_WITHOUT = (
    "MASE: left out; what it divides by is known of the series of the training alone, and "
    "not to a run of an older version"
)


def _of_held_out(s: Eval) -> tuple[Run, dict[str, float], str]:
    run = with_data(s.run)
    figures = train.evaluate(run.task, run.model, run.params)
    return run, figures, "held-out data"


def _of_file(s: Eval, file: pathlib.Path) -> tuple[Run, dict[str, float], str]:
    run = opened(s.run)
    columns = dict(target=s.target, sequence=s.sequence, time=s.time)
    ahead = "horizon" in run.config["made"]["task"]
    found = (windows if ahead else given)(run, file, **columns)
    if found.targets is None and not tasks.predicts_next(run.task):
        raise ValueError(f"{file}: expected targets, it has none; see --target")
    series = _known(run, found.names) if ahead else None
    try:
        figures = run.evaluate(found.inputs, found.targets, series=series)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from None
    what = "windows" if ahead else "sequences"
    return run, figures, f"{len(found.inputs):,} {what}"


def _known(run: Run, names: tuple) -> tuple | None:
    """The series of each window, where all of them were in the training."""
    naive = tasks.encoding_of(run.task).naive
    return names if naive and set(names) <= set(naive) else None
