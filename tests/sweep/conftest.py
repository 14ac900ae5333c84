"""Modules of this folder share their compiled programs."""

from support.compiled import make_always_quick
from support.kept_programs import few_programs, own_programs  # noqa: F401


def pytest_itemcollected(item):
    make_always_quick(item)
