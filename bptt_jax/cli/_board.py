"""Scalars for TensorBoard, written at once: tensorboardX's own writer is a thread, which a
full disk ends, and whoever has more for it waits for ever.
"""

import pathlib
import time

from bptt_jax import _files


class Board:
    """A file of events in a folder, which is made."""

    def __init__(self, folder: pathlib.Path):
        from tensorboardX.event_file_writer import EventsWriter

        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with _files.naming(folder):
            self.events = EventsWriter(str(folder / "events"))

    def scalars(self, name: str, values: dict[int, float]) -> None:
        """Step -> value."""
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.summary import scalar

        with _files.naming(self.folder):
            for step, value in values.items():
                summary = scalar(name, value)
                event = Event(wall_time=time.time(), step=step, summary=summary)
                self.events.write_event(event)
            self.events.flush()

    def close(self) -> None:
        with _files.naming(self.folder):
            self.events.close()
