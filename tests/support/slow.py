"""Tests that run in the slow tier because of what they take, by a committed list.

    cd tests && python -m support.slow [TABLE]    writes slow.txt, by durations.txt or another
                                                  table, as `support.durations` writes them

The fast tier is for whoever has changed something and waits. A test of it that takes `MOST`
seconds or more by the table of durations runs in the slow tier, but for

    those that a fault of `source_edits` names as what finds it,
    those of `support.durations.STAYS`, whole ways through the library,
    those of `support.smoke`,
    those of `ALONE`, so that every public function runs in it.

Tests that share what is computed for one of them (a fixture of a module, a cache) are listed
together, by hand: the first that runs has what it takes, and without that one the next.

They are marked `listed`, too: where only a part of the tests runs (other versions), these are
among it. Where a test is slow by itself it says so with a mark.
"""

import pathlib
import sys

import pytest

from source_edits import EDITS
from support import durations, smoke

FILE = pathlib.Path(__file__).parents[1] / "slow.txt"
MOST = 0.5
ALONE = (
    "export/test_export.py::test_it_holds_no_custom_call[symbols]",  # export.exported
    "sweep/test_trainer.py::test_what_does_not_fit_is_named",  # sweep.trainer
    "tasks/test_text.py::test_stdlib",  # tasks.stdlib, stdlib_corpus
)
"""What alone runs a public function."""


def listed() -> set[str]:
    """Names of tests, `tests/a.py::test_b[c]`."""
    return set(FILE.read_text(encoding="utf-8").splitlines())


def mark(items) -> None:
    """Marks those that are listed."""
    slow = listed()
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.listed)


def chosen(table: dict[str, float], named: set[str]) -> list[str]:
    """Of the table those that are to run in the slow tier.

    Args:
      table: seconds by test.
      named: tests that faults name, `a.py::test_b`, or of one with parameters `a.py::test_b[c]`.
    """

    def may(test):
        name = test.removeprefix("tests/")
        whole = name.partition("[")[0]
        file, _, function = whole.partition("::")
        is_smoke = function in smoke.SMOKE.get(file, ())
        is_named = whole in named or name in named
        stays = name.startswith((*durations.STAYS, *ALONE))
        return not (is_smoke or is_named or stays)

    return sorted(test for test, s in table.items() if s >= MOST and may(test))


def named() -> set[str]:
    """What all faults name."""
    return {test for edit in EDITS for test in edit.first}


if __name__ == "__main__":
    by = pathlib.Path(sys.argv[1]) if sys.argv[1:] else durations.FILE
    table = durations.read(by.read_text(encoding="utf-8"))
    before = dict.fromkeys(listed() if FILE.exists() else (), MOST)  # not in the table
    names = chosen(before | table, named())
    FILE.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
