"""What experiments share: their command line, and results that survive a stop.

An experiment is a table of parts, each computed once. A part that is done is written down
at once, so the same command goes on after a stop; `results.json` is written when all are.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

PACKAGES = ("bptt-jax", "jax", "jaxlib", "optax", "numpy")


def quick(doc: str | None, less: str) -> bool:
    """Whether the command line asks for the quick mode; `less` says what that leaves."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{less}; writes nothing")
    return parser.parse_args().quick


class Results:
    """The parts that are done, by name.

    Args:
      folder: of the experiment.
      settings: what the parts depend on, as JSON has it; parts that were computed with
        others are computed anew.
      total: how many parts there will be, for the display.
      quick: nothing is read or written.
    """

    def __init__(
        self, folder: pathlib.Path, settings: dict[str, Any], total: int, quick: bool
    ):
        self.folder, self.total, self.quick = folder, total, quick
        self.settings = json.loads(json.dumps(settings))
        self.parts: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.unfinished = folder / "unfinished.json"
        if not quick and self.unfinished.exists():
            there = json.loads(self.unfinished.read_text())
            if there["settings"] == self.settings:
                self.parts, self.seconds = there["parts"], there["seconds"]
                print(f"continues: {len(self.parts)} of {total} parts are there")

    def part(self, name: str, compute: Callable[[], Any], shown: str = "{}") -> Any:
        """The result of a part, computed where it is not there; `shown` formats it."""
        if name not in self.parts:
            began = time.monotonic()
            self.parts[name] = json.loads(json.dumps(compute()))
            self.seconds[name] = round(time.monotonic() - began, 1)
            if not self.quick:
                _write(self.unfinished, self._so_far())
        number, result = len(self.seconds), self.parts[name]
        if isinstance(result, dict):
            result = shown.format(**result) if shown != "{}" else result
        else:
            result = shown.format(result)
        print(
            f"{number}/{self.total} {name}: {result} ({self.seconds[name]:.0f} s)",
            flush=True,
        )
        return self.parts[name]

    def finish(self, **summary: Any) -> dict[str, Any]:
        """Writes `results.json`, with what it was taken on."""
        found = dict(
            machine=f"{platform.machine()}, {os.cpu_count()} cores",
            python=platform.python_version(),
            versions={p: importlib.metadata.version(p) for p in PACKAGES},
            minutes=round(sum(self.seconds.values()) / 60, 1),
            **self._so_far(),
            **summary,
        )
        if not self.quick:
            _write(self.folder / "results.json", found)
            self.unfinished.unlink(missing_ok=True)
        return found

    def _so_far(self) -> dict[str, Any]:
        return dict(settings=self.settings, parts=self.parts, seconds=self.seconds)


def _write(path: pathlib.Path, what: Any) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(what, indent=1) + "\n")
    new.replace(path)
