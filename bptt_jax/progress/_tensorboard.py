"""Scalars for TensorBoard, written at once: tensorboardX's own writer is a thread, which a
full disk ends, and whoever has more for it waits for ever.
"""

import importlib.util
import os
import pathlib
import time
from typing import Any

import numpy as np

from bptt_jax import _files
from bptt_jax.progress._protocol import Progress, Start


def tensorboard(folder: str | os.PathLike[str] | None = None) -> Progress:
    """Event files for TensorBoard: `loss`, `held_out` and `held_out/NAME` of each metric.

    Of a sweep: `best` and `alive`, over the updates of all configurations.

    Args:
      folder: made where it is missing; None: `tensorboard/` in the loop's own.

    Raises:
      ModuleNotFoundError: tensorboardX is not installed.

    >>> from bptt_jax import progress
    >>> listens = progress.tensorboard("runs/board")
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise ModuleNotFoundError(
            "TensorBoard's files need tensorboardX: pip install tensorboardX"
        )
    board = _Board(None if folder is None else pathlib.Path(folder))
    return Progress(
        updates=board.updates,
        measured=board.measured,
        begun=board.begun,
        ended=board.ended,
    )


class _Board:
    """A file of events in a folder, from the beginning of a loop to its end."""

    def __init__(self, folder: pathlib.Path | None):
        self.said, self.events = folder, None

    def begun(self, start: Start) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self.of_sweep = start.task is None
        self.folder = self.said or start.out / "tensorboard"
        self.folder.mkdir(parents=True, exist_ok=True)
        with _files.naming(self.folder):
            self.events = EventsWriter(str(self.folder / "events"))

    def updates(self, position: int, losses: np.ndarray) -> None:
        steps = range(position - len(losses) + 1, position + 1)
        self._scalars("loss", dict(zip(steps, losses.tolist(), strict=True)))

    def measured(self, position: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            if not self.of_sweep:
                name = "held_out" if name == "loss" else f"held_out/{name}"
            self._scalars(name, {position: value})

    def _scalars(self, name: str, values: dict[int, float]) -> None:
        """Step -> value."""
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.summary import scalar

        events: Any = self.events
        with _files.naming(self.folder):
            for step, value in values.items():
                summary = scalar(name, value)
                event = Event(wall_time=time.time(), step=step, summary=summary)
                events.write_event(event)
            events.flush()

    def ended(self) -> None:
        if self.events is not None:
            with _files.naming(self.folder):
                self.events.close()
            self.events = None
