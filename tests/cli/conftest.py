"""Tests in this folder keep all compiled programs, also for the next module of it."""

from support.compiled import make_always_quick
from support.kept_programs import few_programs, kept_programs, own_programs  # noqa: F401


def pytest_itemcollected(item):
    make_always_quick(item)
