"""`bptt-jax predict RUN FILE`: what a trained network says of a file, as CSV."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import tyro

from bptt_jax import _files, tasks
from bptt_jax.cli._opened import inputs, opened
from bptt_jax.cli._parse import File, Folder, parse
from bptt_jax.interop import files
from bptt_jax.train import Run


@dataclasses.dataclass(frozen=True)
class Predict:
    """Write what a trained network predicts for a file: a line for each sequence or step."""

    run: Folder
    """A run's folder."""
    file: File
    """A .csv, .parquet, .npy, .npz or .ts file; a target in it is not read."""
    sequence: str | None = None
    """The column that names the sequence of a row; by default as in training."""
    time: str | None = None
    """The column that orders the rows of a sequence; by default as in training."""
    probabilities: bool = False
    """Write those of all classes, too."""
    out: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A new CSV file; by default it is shown."""


def command(argv: list[str]) -> int:
    s = parse(Predict, argv, "bptt-jax predict")
    if s.out is not None:
        files.check_new(s.out)
    run = opened(s.run)
    if s.probabilities:
        tasks.refuse_numbers(run.task)
    found = inputs(run, s.file, sequence=s.sequence, time=s.time)
    try:
        said = run.predict(found.inputs)
        odds = run.predict_proba(found.inputs) if s.probabilities else None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{s.file}: {error}") from None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(_lines(run, found.names, said, odds))
    if s.out is None:
        print(text.getvalue(), end="")
    else:
        _files.create(
            s.out, lambda new: new.write_text(text.getvalue(), encoding="utf-8")
        )
        print(f"{s.out}: {len(found.names):,} sequences")
    return 0


def _lines(run: Run, names: tuple, said: Any, odds: Any) -> Iterator[list]:
    """The names of the columns, and a line for each sequence, or for each of its steps."""
    per_step = tasks.encoding_of(run.task).per_step
    first = said[0][0] if per_step else said[0]
    yield [
        *(["sequence", "step"] if per_step else ["sequence"]),
        *_names("prediction", np.shape(first)),
        *(
            []
            if odds is None
            else _of_classes(run, odds[0][0] if per_step else odds[0])
        ),
    ]
    for i, name in enumerate(names):
        steps = range(len(said[i])) if per_step else [None]
        for t in steps:
            at = lambda a, i=i, t=t: np.ravel(a[i] if t is None else a[i][t]).tolist()
            yield [
                name,
                *([] if t is None else [t]),
                *map(_shown, at(said)),
                *([] if odds is None else at(odds)),
            ]


def _names(what: str, shape: tuple[int, ...]) -> list[str]:
    """`prediction`, or `prediction[0,1]` of each value."""
    if not shape:
        return [what]
    return [f"{what}[{','.join(map(str, at))}]" for at in np.ndindex(*shape)]


def _of_classes(run: Run, odds: Any) -> list[str]:
    classes = tasks.encoding_of(run.task).classes
    if classes is None:
        return _names("probability", np.shape(odds))
    return [f"probability of {_shown(name)}" for name in classes]


def _shown(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
