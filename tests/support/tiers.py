"""Which tier a member's test is in: some members stand for all in the quicker ones."""

import pytest

from support.members import CELLS, COMPLEX, LAYERS, UNROLLS

SOME = ("elman", "lstm", "gru", "learned_carry", "from_step", "checkpointed")
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


def layers() -> list:
    """All layers in the slow tier, but for those that are part of another."""
    return [
        pytest.param(n, marks=pytest.mark.release if m.part_of else pytest.mark.slow)
        for n, m in LAYERS.items()
    ]


def unrolls(fast=()) -> list:
    """All unrolls: the given ones in the fast tier, the others in the slow one."""
    return [slow(name, name in fast) for name in UNROLLS]


def of_unrolls(fast, others) -> list:
    """All unrolls with all of `others`; `fast(other)` says which are quick."""
    return [tier(u, fast(o), (u, o)) for u in UNROLLS for o in others]


def of_complex(others) -> list:
    """The complex cells with all of `others`, in the slow tier."""
    return [slow((c, o), False) for o in others for c in COMPLEX]


def slow(value, fast: bool):
    """A parameter, or several, in the fast tier or in the slow one."""
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=[] if fast else [pytest.mark.slow])


def pairs(fast, others) -> list:
    """All cells with all of `others`; `fast(name, other)` says which are quick."""
    return [tier(n, fast(n, o), (n, o)) for n in CELLS for o in others]
