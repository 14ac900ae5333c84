"""Whether the output of a step is a part of its state, found in a trace of it."""

import dataclasses
from typing import Any

import jax
from jax.extend import core

from bptt_jax._jax import held_program
from bptt_jax.cells._parts import forward
from bptt_jax.types import Cell, PyTree, Unsaid


@dataclasses.dataclass(frozen=True)  # equal selections make equal cells
class Selection:
    """`Cell.output` by number: of each leaf of y the leaf of the carry that it is."""

    numbers: tuple[int, ...]
    structure: Any

    def __call__(self, carry: PyTree) -> PyTree:
        leaves = jax.tree.leaves(carry, is_leaf=lambda a: a is None)
        return self.structure.unflatten([leaves[i] for i in self.numbers])


def recognised(cell: Cell, params: PyTree, carry: PyTree, xs: PyTree) -> Cell:
    """The cell with the output that a trace of one step shows, where nobody said it.

    Args:
      cell: as it is given, without mask and resets.
      params: its parameters.
      carry: of a step.
      xs: of some steps, as the cell takes them.

    Returns:
      The cell; still `Unsaid()` where no leaf of the carry is the output, or where the
      step raises (which is told by who runs it).
    """
    if not isinstance(cell.output, Unsaid):
        return cell

    def step(params, carry, xs):
        us = cell.vjp.project(params, xs)
        return forward(cell, params, carry, jax.tree.map(lambda a: a[0], us))

    try:
        traced, shapes = jax.make_jaxpr(step, return_shape=True)(params, carry, xs)
        after, y = shapes
    except (TypeError, ValueError):
        return cell
    where = [_origin(traced.jaxpr, v) for v in traced.jaxpr.outvars]
    n = len(jax.tree.leaves(after))
    states, outputs = where[:n], where[n:]
    if None in outputs or not all(place in states for place in outputs):
        return cell
    numbers = tuple(states.index(place) for place in outputs)
    return cell._replace(output=Selection(numbers, jax.tree.structure(y)))


def _origin(jaxpr, result) -> tuple | None:
    """Where a result comes from, through calls: equation by equation, and the variable.

    None: it is a constant.
    """
    if isinstance(result, core.Literal):
        return None
    for i, eqn in enumerate(jaxpr.eqns):
        for j, made in enumerate(eqn.outvars):
            if made is not result:
                continue
            inner = program(eqn)
            if inner is None:
                return (result,)
            within = _origin(inner, inner.outvars[j])
            handed_on = within is not None and within[-1] in inner.invars
            return (result,) if within is None or handed_on else (i, *within)
    return (result,)


def program(eqn):
    """The jaxpr that a call holds; None: it is no call."""
    held = held_program(eqn)
    return None if held is None else held.jaxpr


def output_leaves(cell: Cell, carry: PyTree) -> list[int]:
    """For each leaf of y the index of the carry's leaf that it is; [] if there is none."""
    structure = jax.tree.structure(carry)
    numbered = structure.unflatten(range(structure.num_leaves))
    found = jax.tree.leaves(cell.output(numbered)) if cell.output else []
    if any(not isinstance(i, int) for i in found):
        raise TypeError(
            "output: expected leaves of the carry as they are, got something made of "
            "them; None where the output is no part of the state"
        )
    return found
