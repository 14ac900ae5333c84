"""A cell within what `Side` has for it."""

from bptt_jax import _pytrees as trees
from bptt_jax.cells._masked import masked
from bptt_jax.cells._resets import resets
from bptt_jax.types import Cell, PyTree, Side


def with_side(cell: Cell, xs: PyTree, side: Side) -> tuple[Cell, PyTree]:
    """The cell wrapped by the fields that are there, and the inputs it then takes.

    The order matters: a reset is an event before step t, whether step t is real or not.
    """
    if cell.keyed:
        xs = (xs, trees.typed_keys(side.keys))
    if side.mask is not None:
        cell, xs = masked(cell), (xs, side.mask)
    if side.resets is not None:
        cell, xs = resets(cell), (xs, side.resets)
    return cell, xs


def without_side(cell: Cell, side: Side, d_xs: PyTree) -> PyTree:
    """The cotangent of the inputs alone, out of that of what `with_side` made."""
    for there in (side.resets is not None, side.mask is not None, cell.keyed):
        d_xs = d_xs[0] if there else d_xs
    return d_xs
