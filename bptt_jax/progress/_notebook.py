"""A notebook: a bar, a line for each evaluation, and a figure that grows."""

import html
import time
from typing import Any

import numpy as np

import bptt_jax
from bptt_jax.progress._protocol import Progress, Start, Status
from bptt_jax.progress._words import (
    Unit,
    metrics_in_words,
    of_status,
    rates_in_words,
    unit_of,
)

EVERY = 0.25
"""Seconds between two pictures of the bar."""


def notebook(*, figure: bool = True, unit: Unit | None = None) -> Progress:
    """A progress bar under the cell, and a figure that grows with each evaluation.

    Args:
      figure: whether the losses are drawn, too. Of one training alone.
      unit: what losses are shown in; None: as they are.

    Raises:
      ModuleNotFoundError: IPython is not installed.
    """
    try:
        import IPython.display as shown
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "progress.notebook needs IPython: pip install ipykernel"
        ) from None
    cell = _Cell(shown, figure, unit)
    return Progress(
        updates=cell.updates,
        message=cell.message,
        measured=cell.measured,
        advanced=cell.advanced,
        begun=cell.begun,
        ended=cell.ended,
    )


class _Cell:
    """What is under a cell: handles of what is shown there, and what they are made of."""

    def __init__(self, shown: Any, figure: bool, unit: Unit | None):
        self.shown, self.figure, self.said = shown, figure, unit
        self.text = ""

    def begun(self, start: Start) -> None:
        self.start, self.unit = start, self.said or unit_of(start.task)
        self.done, self.at = start.done, -np.inf
        self.steps: list[np.ndarray] = []
        self.losses: list[np.ndarray] = []
        self.held_out: dict[int, float] = {}
        self.drawing = None
        self.text, self.rates = "compiling", ""
        self.bar = self.shown.display(self._picture(), display_id=True)

    def ended(self) -> None:
        self._draw(due=True)

    def message(self, text: str) -> None:
        self.shown.display(self.shown.HTML(f"<div>{html.escape(text)}</div>"))

    def updates(self, position: int, losses: np.ndarray) -> None:
        self.steps.append(np.arange(position - len(losses), position) + 1)
        self.losses.append(np.asarray(losses))
        recent = losses[np.isfinite(losses)].tolist()
        if recent:
            loss = self.unit.updates(recent, position)
            self.training = f"training {loss:.3f} {self.unit.name}"
            self._tell(position, self.training)

    def measured(self, position: int, figures: dict[str, float]) -> None:
        if self.start.task is None:  # `advanced` shows what a sweep has
            return
        loss = self.unit.held_out * figures["loss"]
        self.held_out[position] = loss
        others = metrics_in_words(self.start.task, figures, self.unit.name)
        self.message(
            f"step {position:,}: held out "
            + ", ".join([f"{loss:.3f} {self.unit.name}", *others])
        )
        if self.figure:
            self._figure()

    def advanced(self, status: Status) -> None:
        self.rates = rates_in_words(status.rates)
        if self.start.task is None:
            text = of_status(status.best, status.alive, self.unit.name)
            self._tell(status.done, text)

    def _tell(self, done: int, text: str) -> None:
        self.done, self.text = done, text
        self._draw()

    def _draw(self, due: bool = False) -> None:
        now = time.monotonic()
        if due or now - self.at >= EVERY:
            self.at = now
            self.bar.update(self._picture())

    def _picture(self) -> Any:
        done, total = self.done, self.start.total
        return self.shown.HTML(
            f'<progress value="{done}" max="{total}"></progress> '
            f"{done:,}/{total:,} {html.escape(self.text)} {self.rates}"
        )

    def _figure(self) -> None:
        """As `plots.loss` draws it, of what has been told so far."""
        if not self.losses:
            return
        steps, losses = np.concatenate(self.steps), np.concatenate(self.losses)
        fine = np.isfinite(losses)
        task = self.start.task
        if task is None or self.unit != unit_of(task) or not fine.any():
            return  # each loss by itself is in no unit that is shown
        picture = bptt_jax.plots.loss(
            steps[fine], losses[fine],
            held_out_steps=list(self.held_out), held_out=list(self.held_out.values()),
            baselines=task.baselines, unit=self.unit.name,
        )  # fmt: skip
        if self.drawing is None:
            self.drawing = self.shown.display(picture, display_id=True)
        else:
            self.drawing.update(picture)
