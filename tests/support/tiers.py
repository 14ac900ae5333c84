"""Which tier a member's test is in: some members stand for all in the quicker ones."""

import pytest

from support.members import CELLS

SOME = ("elman", "lstm", "gru", "learned_carry", "from_step")
"""One of each kind: those that the slow tier has where the full table takes long."""


def tier(name: str, fast: bool, values: tuple = ()):
    """`name` (or `values`) as a parameter of a test, marked by its tier."""
    values = values or (name,)
    if fast:
        return pytest.param(*values)
    mark = pytest.mark.slow if name in SOME else pytest.mark.release
    return pytest.param(*values, marks=mark)


def cells(fast) -> list:
    """All cells: the given ones in the fast tier, `SOME` in the slow one."""
    return [tier(name, name in fast) for name in CELLS]


def pairs(fast, others) -> list:
    """All cells with all of `others`; `fast(name, other)` says which are quick."""
    return [tier(n, fast(n, o), (n, o)) for n in CELLS for o in others]
