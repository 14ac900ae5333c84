"""Metrics as JSON lines, one object a line, whose steps never go back."""

import json
import pathlib
from typing import Any

from bptt_jax import _files
from bptt_jax._processes import first, together


class MetricsFile:
    """Lines `{"step": …, …}` in a file that a run may stop writing at any byte.

    `resume(position)` leaves the lines of the steps up to `position`, and takes away what
    was written after the last checkpoint, so that the file of a run that was stopped and
    continued is that of one that was not. Of several processes the first one writes.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path

    def lines(self) -> list[dict[str, Any]]:
        """The complete lines there are, up to the first that is damaged."""
        if not self.path.exists():
            return []
        read = []
        for line in self.path.read_bytes().split(b"\n")[:-1]:
            try:
                found = json.loads(line)
            except ValueError:
                break
            if not (isinstance(found, dict) and isinstance(found.get("step"), int)):
                break
            read.append(found)
        return read

    def resume(self, position: int) -> list[dict[str, Any]]:
        kept = [line for line in self.lines() if line["step"] <= position]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        together("read")
        if first():
            self._replace(text)
        together("resumed")
        return kept

    def _replace(self, text: str) -> None:
        if not self.path.exists() or self.path.read_text(errors="replace") != text:
            _files.replace_text(self.path, text)

    def append(self, lines: list[dict[str, Any]]) -> None:
        if not first():
            return
        with self.path.open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
