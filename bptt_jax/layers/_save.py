"""What is kept of each step for the way back, and what is computed again.

    member          kept beside the states             computed again
    STATES          nothing                            projected inputs, gates, coefficients
    GATES           the gates                          coefficients
    COEFFICIENTS    the coefficients                   nothing
    NOTHING         nothing, and no states either      the whole stretch (`layers.remat`)

States that are outputs are kept once, as outputs. Gradients are the same.
"""

import jax

from bptt_jax.cells import linearize
from bptt_jax.types import Cell, PyTree, Save


def _no_more(cell, params, carry, u, gates, after):
    del cell, params, carry, u, gates, after
    return ()


def _from_states(cell, params, xs, carries, nexts, kept):
    del kept
    us = cell.vjp.project(params, xs)
    return linearize(cell, params, carries, us, nexts)


STATES = Save(_no_more, _from_states)
"""The least that makes no step run again: time for two products, memory for the states."""


def _gates(cell, params, carry, u, gates, after):
    """The gates, None for each that is a part of the state or of the input as it is."""
    del cell, params, carry
    there = {id(a) for a in jax.tree.leaves((u, after))}
    return jax.tree.map(lambda a: None if id(a) in there else a, gates)


def _from_gates(cell, params, xs, carries, nexts, kept):
    us = cell.vjp.project(params, xs)
    again = cell.vjp.gates(params, carries, us)  # dropped, but for what was not kept
    leaves, structure = jax.tree.flatten(again)
    each = zip(structure.flatten_up_to(kept), leaves, strict=True)
    gates = structure.unflatten([b if a is None else a for a, b in each])
    return cell.vjp.local(params, gates, carries, nexts)


GATES = Save(_gates, _from_gates)
"""Memory for two products: the gates, three to five times the states of a gated cell."""


def _coefficients(cell, params, carry, u, gates, after):
    del u
    at = jax.tree.map(lambda a: a[None], (gates, carry, after))
    return jax.tree.map(lambda a: a[0], cell.vjp.local(params, *at))


def _from_coefficients(cell, params, xs, carries, nexts, kept):
    del cell, params, xs, carries, nexts
    return kept


COEFFICIENTS = Save(_coefficients, _from_coefficients)
"""Memory for all that can be computed in the forward pass."""


def _never(*at):
    raise AssertionError("a stretch of which nothing is kept runs again")


NOTHING = Save(_never, _never)
"""Each stretch runs again before it is pulled back; see `layers.remat`."""


def by_shapes(cell: Cell, params: PyTree, carry: PyTree, xs: PyTree) -> Save:
    """What is kept where nobody said it."""
    del cell, params, carry, xs
    return STATES
