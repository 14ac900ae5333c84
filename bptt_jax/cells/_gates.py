"""The gates of a cell that is within another."""

from collections.abc import Callable

from bptt_jax.types import Cell


def gates_within(cell: Cell, take: Callable) -> Callable | None:
    """`gates` of a cell around `cell`; None where that has none.

    Args:
      cell: the inner cell.
      take: `(params, carries, us)` of the outer cell -> those of the inner one.
    """
    inner = cell.gates
    return None if inner is None else lambda *at: inner(*take(*at))
