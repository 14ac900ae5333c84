"""Tests that run in the slow tier because of what they take, by a committed list.

    cd tests && python -m support.slow mutants.json     writes slow.txt

The fast tier is for whoever has changed something and waits. A test of it that takes more than
`MOST` seconds by the table of durations runs in the slow tier, but for

    those that find a fault of `source_edits` first (what `source_mutants.py` wrote),
    those of `support.durations.STAYS`, whole ways through the library.

Where a test is slow by itself it says so with a mark.
"""

import json
import pathlib
import sys

import pytest

from support import durations

FILE = pathlib.Path(__file__).parents[1] / "slow.txt"
MOST = 0.5


def listed() -> set[str]:
    """Names of tests, `tests/a.py::test_b[c]`."""
    return set(FILE.read_text(encoding="utf-8").splitlines())


def mark(items) -> None:
    """Marks those that are listed."""
    slow = listed()
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)


def chosen(table: dict[str, float], finds: set[str]) -> list[str]:
    """Of the table those that are to run in the slow tier.

    Args:
      table: seconds by test.
      finds: tests that find a fault.
    """

    def may(test):
        stays = test.removeprefix("tests/").startswith(durations.STAYS)
        return test not in finds and not stays

    return sorted(test for test, s in table.items() if s >= MOST and may(test))


def main(written: list[str]) -> None:
    found = [json.loads(pathlib.Path(file).read_text("utf-8")) for file in written]
    finds = {each["caught"] for one in found for each in one.values() if each["caught"]}
    table = durations.read(durations.FILE.read_text(encoding="utf-8"))
    names = set(chosen(table, finds)) | (listed() - finds if FILE.exists() else set())
    FILE.write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
