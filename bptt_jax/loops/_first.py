"""Which loop runs."""

import contextlib
import contextvars
import math
import os

import jax

from bptt_jax.loops._native import native
from bptt_jax.loops._pallas import pallas
from bptt_jax.loops._step_by_step import step_by_step
from bptt_jax.types import Cell, Loop, PyTree, Save

LOOPS = (native, pallas, step_by_step)
BY_DEFAULT = (native, step_by_step)  # what is tried first comes first
CHOICE = "BPTT_JAX_LOOP"
"""Of the environment: the loop that is tried first where nobody names one."""
CACHED = 2**22
"""Weights of a cell: more leave the last cache, and a kernel reads them again for every panel of
rows. With 8 million the native loop took 1.1 of the time (`benchmarks/results/loops.json`).
"""


_preferred: contextvars.ContextVar[Loop | None] = contextvars.ContextVar(
    "preferred", default=None
)


@contextlib.contextmanager
def preferred(loop: Loop):
    """What is traced meanwhile runs by this loop where it can and nobody named another."""
    before = _preferred.set(loop)
    try:
        yield
    finally:
        _preferred.reset(before)


def first_of(
    loop: Loop | None,
    cell: Cell,
    save: Save,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
) -> Loop:
    """The loop that runs a stretch.

    Args:
      loop: the one that is wanted; None: the first that supports the case.
      cell: as the stretch runs it, with masks, resets and hooks.
      save: what is kept.
      params, carry, xs: of a stretch, as the cell takes them, for shapes and dtypes.

    Raises:
      ValueError: the one that is wanted cannot run this; the message says why.
    """
    shapes = jax.tree.map(jax.typeof, (params, carry, xs))
    return first_of_shapes(loop, cell, save, shapes)


def first_of_shapes(
    loop: Loop | None, cell: Cell, save: Save, shapes: tuple[PyTree, PyTree, PyTree]
) -> Loop:
    """`first_of` for shapes and dtypes of `(params, carry, xs)`."""
    reasons = []
    for each in _by_default(shapes[0]) if loop is None else (loop,):
        reason = each.supports(cell, save, shapes, jax.default_backend())
        if reason is None:
            return each
        reasons.append(f"{each} cannot run this: {reason}")
    raise ValueError(f"loop: {'; '.join(reasons)}")


def _by_default(params: PyTree) -> tuple[Loop, ...]:
    if (loop := _preferred.get()) is not None:
        return loop, step_by_step
    said = os.environ.get(CHOICE)
    if not said:
        weights = sum(math.prod(a.shape) for a in jax.tree.leaves(params) if a.ndim > 1)
        fits = weights <= CACHED and jax.default_backend() == "cpu"
        return BY_DEFAULT if fits else (step_by_step,)
    names = {each.name.removeprefix("loops."): each for each in LOOPS}
    if said not in names:
        raise ValueError(f"{CHOICE}: expected one of {sorted(names)}, got {said!r}")
    return tuple(dict.fromkeys((names[said], step_by_step)))
