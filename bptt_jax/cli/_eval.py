"""`bptt-jax eval RUN [FILE]`: what a trained network is worth."""

import dataclasses
import pathlib
from typing import Annotated

import tyro

from bptt_jax import tasks, train
from bptt_jax.cli._opened import given, opened, windows, with_data
from bptt_jax.cli._parse import Folder, parse


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
    if s.file is None:
        run = with_data(s.run)
        figures, where = (
            train.evaluate(run.task, run.model, run.params),
            "held-out data",
        )
    else:
        run = opened(s.run)
        columns = dict(target=s.target, sequence=s.sequence, time=s.time)
        ahead = "horizon" in run.config["made"]["task"]
        found = (windows if ahead else given)(run, s.file, **columns)
        if found.targets is None and not tasks.predicts_next(run.task):
            raise ValueError(f"{s.file}: expected targets, it has none; see --target")
        try:
            figures = run.evaluate(found.inputs, found.targets)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{s.file}: {error}") from None
        where = f"{len(found.inputs):,} {'windows' if ahead else 'sequences'}"
    print(f"step {run.best.position:,} of {s.run}, {where}:")
    for name, figure in figures.items():
        print(f"{name}: {figure:.4g}")
    return 0
