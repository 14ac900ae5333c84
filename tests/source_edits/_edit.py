"""A fault of the source, as an edit of its text."""

from typing import NamedTuple

ORIGINAL = "verify/test_mutants.py::test_the_original_passes"


class Edit(NamedTuple):
    """A change that a careless hand could make.

    name: what is wrong then.
    file: below the package; a folder: any file in it.
    before, after: texts; the first stands exactly once there, in one line or a few short
        ones that seldom change.
    first: the tests that find it, below `tests`: `file::test`, and `file::test[a]` where one of
        its parameters is enough. They run before all others and stay in the fast tier
        (`support.slow`); a whole file, and other parameters, need not.
    """

    name: str
    file: str
    before: str
    after: str
    first: tuple[str, ...]


def edits(file: str, *each: tuple[str, str, str, str]) -> tuple[Edit, ...]:
    """Those of a file: `(name, before, after, first)`; `first` has one test in a line."""
    return tuple(
        Edit(name, file, before, after, tuple(first.strip().split("\n")))
        for name, before, after, first in each
    )


def original(name: str) -> str:
    """The check of a right member by which its mutants are refused."""
    return f"{ORIGINAL}[{name}]"
