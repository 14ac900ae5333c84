"""Metrics as JSON lines, one object a line, whose steps never go back."""

import itertools
import json
import pathlib
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from bptt_jax import _files
from bptt_jax._processes import first, together


class MetricsFile:
    """Lines `{"step": …, …}` in a file that a run may stop writing at any byte.

    `resume(position)` leaves the lines of the steps up to `position`, and takes away what
    was written after the last checkpoint, so that the file of a run that was stopped and
    continued is that of one that was not. A line that cannot be read costs no other: it
    is named, and kept in a file beside. Of several processes the first one writes.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path

    def lines(self) -> list[dict[str, Any]]:
        """All lines that can be read."""
        return self._read().objects

    def _read(self) -> _files.Lines:
        found = _files.read_lines(self.path, _is_line)
        whole = [line | dict(step=int(line["step"])) for line in found.objects]
        return found._replace(objects=whole)

    def resume(
        self, position: int, say: Callable[[str], Any] = warnings.warn
    ) -> list[dict[str, Any]]:
        """The lines up to `position`, which are all that the file then has.

        `say` is told which lines could not be read. What is of a later step by its own
        words is computed again, and no loss.
        """
        found = self._read()
        kept = [line for line in found.objects if line["step"] <= position]
        cut = [(0, found.cut)] if found.cut else []
        lost = [
            (number, line)
            for number, line in [*found.damaged, *cut]
            if not _is_later(line, position)
        ]
        together("read")
        if first():
            if lost:
                beside = _files.set_aside(self.path, lost)
                lines = ", ".join(
                    f"line {n}" if n else "the last, cut" for n, _ in lost
                )
                say(
                    f"{self.path} has lines that cannot be read ({lines}); they are in "
                    f"{beside.name} now, all others stay"
                )
            self._replace("".join(json.dumps(line) + "\n" for line in kept))
        together("resumed")
        return kept

    def _replace(self, text: str) -> None:
        if not self.path.exists() or self.path.read_bytes() != text.encode():
            _files.replace_text(self.path, text)

    def append(self, lines: list[dict[str, Any]]) -> None:
        if first():
            _files.append(self.path, lines)


def _is_line(found: dict[str, Any]) -> bool:
    step = found.get("step")
    if isinstance(step, float):
        return step.is_integer()  # 5.0; neither NaN nor infinity
    return isinstance(step, int) and not isinstance(step, bool)


def _is_later(line: bytes, position: int) -> bool:
    """Whether a line that cannot be read begins as one of a later step."""
    begins = re.match(rb'\{"step": (\d+)[,}]', line)
    return begins is not None and int(begins[1]) > position


def missing(lines: Iterable[dict[str, Any]], position: int) -> list[int]:
    """The steps up to `position` of which there is no line."""
    of_steps = (
        line for line in lines if not {"held_out", "final_held_out"} & set(line)
    )
    there = {line["step"] for line in of_steps}
    return [step for step in range(1, position + 1) if step not in there]


def ranges(steps: list[int]) -> str:
    """`[1, 2, 3, 7]` as `1-3, 7`."""
    groups = itertools.groupby(enumerate(steps), lambda pair: pair[1] - pair[0])
    ends = [[step for _, step in group] for _, group in groups]
    return ", ".join(f"{e[0]}" if len(e) == 1 else f"{e[0]}-{e[-1]}" for e in ends)
