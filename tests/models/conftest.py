"""Tests in this folder run in float64 under strict promotion of dtypes.

They share their compiled programs.
"""

from support.compiled import make_always_quick
from support.float64 import float64  # noqa: F401
from support.kept_programs import few_programs, own_programs  # noqa: F401


def pytest_itemcollected(item):
    make_always_quick(item)
