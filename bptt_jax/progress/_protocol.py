"""What loops tell while they run: one record for `train.run` and `sweep.run`."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from bptt_jax import _deprecated
from bptt_jax.types import Task


class Start(NamedTuple):
    """What a loop is about to do.

    done, total: updates, of all configurations of a sweep together.
    task: what is trained on; None of a sweep, whose configurations may have others.
    out: the folder.
    """

    done: int
    total: int
    task: Task | None
    out: pathlib.Path


class Status(NamedTuple):
    """How far a loop is.

    done, total: updates, of all configurations of a sweep together.
    alive: configurations that have neither diverged nor been given up.
    best: the best score so far (without `score=` the held-out loss), and the configuration
        or, of one training, the position that it is of; None: there is none yet.
    rates: of one training `updates_per_second`, `tokens_per_second` and `data_wait`, as
        `timings.jsonl` has them; of a sweep nothing.
    """

    done: int
    total: int
    alive: int
    best: tuple[float, int] | None
    rates: dict[str, float] = {}


@_deprecated.field("steps", "updates", gone="0.3.0")
class Progress(NamedTuple):
    """What is told while a loop runs, each a function; by default nothing.

    updates: `(position, losses of the dispatch)`; NaN where no step of a batch counts. Of
        one training alone.
    evaluated: `(position, held-out loss)`. Of one training alone.
    message: `(text)`; where it is not given, what a caller must know is a warning.
    interrupted: `() -> bool`, asked after each dispatch (each unit of work of a sweep);
        True: save, and raise `KeyboardInterrupt`.
    measured: `(position, figures)`: of an evaluation `loss` and each of `Task.metrics`, by
        name; of a sweep, after each unit of work, `best` (if there is one) and `alive`.
    advanced: `(Status)`, after each dispatch (each unit of work of a sweep).
    begun: `(Start)`, once, before the first update.
    ended: `()`, once, however it ends, if `begun` was told.
    """

    updates: Callable = lambda position, losses: None
    evaluated: Callable = lambda position, loss: None
    message: Callable = lambda text: None
    interrupted: Callable = lambda: False
    measured: Callable = lambda position, figures: None
    advanced: Callable = lambda status: None
    begun: Callable = lambda start: None
    ended: Callable = lambda: None


silent = Progress()
"""Nothing is told; what a caller must know is a warning."""
