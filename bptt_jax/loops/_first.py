"""Which loop runs."""

import jax

from bptt_jax.loops._step_by_step import step_by_step
from bptt_jax.types import Cell, Loop, PyTree

IN_ORDER = (step_by_step,)  # what is tried first comes first


def first_of(
    loop: Loop | None, cell: Cell, params: PyTree, carry: PyTree, xs: PyTree
) -> Loop:
    """The loop that runs a stretch.

    Args:
      loop: the one that is wanted; None: the first that supports the case.
      cell: as the stretch runs it, with masks, resets and hooks.
      params, carry, xs: of a stretch, as the cell takes them, for shapes and dtypes.

    Raises:
      ValueError: the one that is wanted cannot run this; the message says why.
    """
    shapes = jax.tree.map(jax.typeof, (params, carry, xs))
    reasons = []
    for each in IN_ORDER if loop is None else (loop,):
        reason = each.supports(cell, shapes, jax.default_backend())
        if reason is None:
            return each
        reasons.append(f"{each} cannot run this: {reason}")
    raise ValueError(f"loop: {'; '.join(reasons)}")
