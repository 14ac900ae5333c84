"""A tree of arrays."""

from typing import Any

PyTree = Any
