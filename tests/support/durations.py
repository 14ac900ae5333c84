"""How long tests take: a committed table, which `.ci/run` makes anew.

    BPTT_JAX_DURATIONS=tests/durations.txt pytest        writes it

One line a test, `SECONDS NODEID`, the longest first, those of at least `LEAST` seconds:
what it takes with what it sets up, on an empty cache of compiled programs.
"""

import collections
import os
import pathlib

FILE = pathlib.Path(__file__).parents[1] / "durations.txt"
VARIABLE = "BPTT_JAX_DURATIONS"
LEAST = 0.5
LONGEST = 3.0
"""A test of the fast tier takes no longer."""


class Durations:
    """A plugin of pytest that writes the table, where the variable says a path."""

    def __init__(self, path: str):
        self.path = pathlib.Path(path)
        self.seconds: collections.Counter = collections.Counter()

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self):
        self.path.write_text(text(self.seconds), encoding="utf-8")


def register(config) -> None:
    """In the process that all reports come to."""
    if (path := os.environ.get(VARIABLE)) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations(path))


def text(seconds: dict[str, float]) -> str:
    long = [(s, test) for test, s in seconds.items() if s >= LEAST]
    lines = (
        f"{s:.1f} {test}\n" for s, test in sorted(long, key=lambda a: (-a[0], a[1]))
    )
    return "".join(lines)


def read(written: str) -> dict[str, float]:
    lines = (line.split(" ", 1) for line in written.splitlines())
    return {test: float(seconds) for seconds, test in lines}
