"""The rows of a sweep as they are written down, and read again: each by itself."""

import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bptt_jax import _files
from bptt_jax._processes import first, together

Row = dict[str, Any]
WHOLE = ("step", "config", "rung", "at", "diverged_at")


class Rows:
    """`rows.jsonl`: a line for each evaluation of each configuration, in order.

    A line that cannot be read, or is no row of this sweep, is as one that is not there;
    it is named and kept beside. Of several processes the first one writes.

    Args:
      path: of the file.
      ends: `(rung, config) -> steps at which it is evaluated`.
    """

    def __init__(self, path: pathlib.Path, ends: Callable[[int, int], Sequence[int]]):
        self.path, self.ends = path, ends
        self.found: dict[tuple[int, int, int], Row] = {}

    def resume(self, number: int, say: Callable[[str], None]) -> None:
        """Reads the rows of the units of work up to a number; others are made again."""
        lines = _files.read_lines(self.path, self.fits)
        for row in lines.objects:
            if row["step"] <= number:
                self.found[row["rung"], row["config"], row["at"]] = row
        together("rows read")
        if first():
            if lines.damaged:
                beside = _files.set_aside(self.path, lines.damaged)
                numbers = ", ".join(str(n) for n, _ in lines.damaged[:10])
                more = ", …" if len(lines.damaged) > 10 else ""
                say(
                    f"{self.path}: {len(lines.damaged):,} damaged lines ({numbers}{more}),"
                    f" kept in {beside.name}"
                )
            self.write(self.found.values())
        together("rows resumed")

    def fits(self, row: Row) -> bool:
        if not all(type(row.get(name)) is int for name in WHOLE):
            return False
        metrics, ends = row.get("metrics"), self.ends(row["rung"], row["config"])
        return (
            row["at"] in ends
            and row.get("last") is (row["at"] == ends[-1])
            and isinstance(metrics, dict)
            and "loss" in metrics
            and all(v is None or type(v) in (int, float) for v in metrics.values())
        )

    def of(self, rung: int, configs: list[int], until: int | None = None) -> list[Row]:
        """The rows of a group up to a step, evaluation by evaluation; none if one lacks."""
        ends = [
            at for at in self.ends(rung, configs[0]) if until is None or at <= until
        ]
        wanted = [(rung, i, at) for at in ends for i in configs]
        if not all(key in self.found for key in wanted):
            return []
        return [self.found[key] for key in wanted]

    def append(self, rows: list[Row]) -> None:
        if first():
            _files.append(self.path, rows)

    def write(self, rows: Iterable[Row]) -> None:
        """All of the file anew, in the order in which an unbroken sweep writes it."""
        text = _text(sorted(rows, key=lambda row: (row["step"], row["config"])))
        if first() and (
            not self.path.exists() or self.path.read_bytes() != text.encode()
        ):
            _files.replace_text(self.path, text)


def _text(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def lines(
    number: int,
    rung: int,
    at: int,
    last: bool,
    configs: Sequence[int],
    found: Sequence[dict[str, Any]],
    diverged: Sequence[int],
    **more: str,
) -> list[Row]:
    """The rows of a group at an evaluation, figures and all, as they are written down."""
    return [
        dict(
            step=number, config=i, rung=rung, at=at, last=last,
            metrics={k: _number(a) for k, a in figures.items()},
            diverged_at=bad, **more,
        )
        for i, figures, bad in zip(configs, found, diverged, strict=True)
    ]  # fmt: skip


def _number(a: Any) -> float | None:
    """As JSON has it: there is no NaN."""
    return float(a) if np.isfinite(a) else None
