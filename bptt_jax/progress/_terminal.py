"""A terminal: a bar, and a line for each evaluation; on no terminal, lines alone."""

import math
from typing import Any

import numpy as np

from bptt_jax.progress._protocol import Progress, Start, Status
from bptt_jax.progress._words import (
    Unit,
    metrics_in_words,
    of_status,
    rates_in_words,
    unit_of,
)

RECENT = 50
"""Updates whose losses are told as one."""


def terminal(*, unit: Unit | None = None, console: Any = None) -> Progress:
    r"""The screen of the command line, for a loop of your own program.

    Args:
      unit: what losses are shown in; None: as they are.
      console: a `rich.console.Console`; None: of standard output. On one that is no
        terminal there is no bar.

    >>> import io, rich.console
    >>> from bptt_jax import progress
    >>> paper = rich.console.Console(file=io.StringIO())
    >>> screen = progress.terminal(console=paper)
    >>> screen.message("hello")
    >>> paper.file.getvalue()
    'hello\n'
    """
    if console is None:
        from rich.console import Console

        console = Console(highlight=False)
    screen = _Screen(console, unit)
    return Progress(
        updates=screen.updates,
        message=lambda text: console.print(text, soft_wrap=True, markup=False),
        measured=screen.measured,
        advanced=screen.advanced,
        begun=screen.begun,
        ended=screen.ended,
    )


class _Screen:
    """What a loop has told so far, and the bar that shows it."""

    def __init__(self, console: Any, unit: Unit | None):
        self.console, self.said = console, unit
        self.bar = self.row = None

    def begun(self, start: Start) -> None:
        self.task, self.unit = start.task, self.said or unit_of(start.task)
        self.recent, self.rates = [], ""
        self.tenth = 10 * start.done // max(1, start.total)
        self.bar = _bar(self.console)
        self.row = self.bar.add_task(
            "compiling", total=start.total, completed=start.done, speed=""
        )
        self.bar.start()

    def ended(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def updates(self, position: int, losses: np.ndarray) -> None:
        fine = losses[np.isfinite(losses)].tolist()
        self.recent = (self.recent + fine)[-RECENT:]
        self._show(position, f"{self._training(position):.3f} {self.unit.name}")

    def measured(self, position: int, figures: dict[str, float]) -> None:
        if self.task is None:  # `advanced` shows what a sweep has
            return
        held_out = f"{self.unit.held_out * figures['loss']:.3f} {self.unit.name}"
        others = metrics_in_words(self.task, figures, self.unit.name)
        self.console.print(
            f"step {position:>6,}  training {self._training(position):.3f}  held out "
            + ", ".join([held_out, *others]),
            soft_wrap=True,
            markup=False,
        )

    def advanced(self, status: Status) -> None:
        if self.task is not None:  # `updates` shows what one training has
            self.rates = rates_in_words(status.rates)
            return
        text = of_status(status.best, status.alive, self.unit.name)
        self._show(status.done, text)
        tenth = 10 * status.done // max(1, status.total)
        if tenth > self.tenth and not self.console.is_terminal:
            self.tenth = tenth
            self.console.print(f"{10 * tenth:3} %  {text}", markup=False)

    def _training(self, position: int) -> float:
        return self.unit.updates(self.recent, position) if self.recent else math.nan

    def _show(self, done: int, text: str) -> None:
        if self.bar is None:
            return
        self.bar.update(self.row, completed=done, description=text, speed=self.rates)


def _bar(console: Any) -> Any:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
