"""What is kept of each step for the way back, and what is computed again.

    member          kept beside the states             computed again
    STATES          nothing                            projected inputs, gates, coefficients
    GATES           the gates                          coefficients
    COEFFICIENTS    the coefficients                   nothing
    NOTHING         nothing, and no states either      the whole stretch (`layers.remat`)

States that are outputs are kept once, as outputs. Gradients are the same.
"""

import functools
import math

import jax

from bptt_jax import _pytrees as trees
from bptt_jax.cells import linearize
from bptt_jax.types import Cell, PyTree, Save


def _no_more(cell, params, carry, u, gates, after):
    del cell, params, carry, u, gates, after
    return ()


def _from_states(cell, params, xs, carries, nexts, kept):
    del kept
    us = cell.vjp.project(params, xs)
    return linearize(cell, params, carries, us, nexts)


STATES = Save("layers.STATES", _no_more, _from_states)
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


GATES = Save("layers.GATES", _gates, _from_gates)
"""Memory for two products: the gates, four numbers a unit of an LSTM or a GRU."""


def _coefficients(cell, params, carry, u, gates, after):
    del u
    at = jax.tree.map(lambda a: a[None], (gates, carry, after))
    return jax.tree.map(lambda a: a[0], cell.vjp.local(params, *at))


def _from_coefficients(cell, params, xs, carries, nexts, kept):
    del cell, params, xs, carries, nexts
    return kept


COEFFICIENTS = Save("layers.COEFFICIENTS", _coefficients, _from_coefficients)
"""Memory for all that can be computed in the forward pass."""


def _never(*at):
    raise AssertionError("it stands for another, which is asked")


NOTHING = Save("layers.NOTHING", _never, _never)
"""Each stretch runs again before it is pulled back; see `layers.remat`."""


WORTH = 160  # multiply-adds for each number kept, that it takes to compute it again
ROOM = 2  # numbers kept for each number of the state


def by_shapes(cell: Cell, params: PyTree, carry: PyTree, xs: PyTree) -> Save:
    """What is kept where nobody said it: `GATES` or `STATES`, by a rule.

    Gates are kept where, for each example and step,

        (1)  the weights, which computing again multiplies with, are at least 160 for
             each number kept: of an LSTM I + H >= 160
        (2)  the numbers kept are at most twice those of the state: 4H of an LSTM's 2H,
             not of a GRU's H

    (1) is where keeping is faster than computing twice, (2) holds the memory of a gradient
    below 0.6 of what `flax.linen.RNN` takes (decision 0016). The rule sees shapes alone and
    is one for all platforms, for what is kept shows in the shapes of a program that is
    exported for several.

    Args:
      cell: without mask, resets and hooks.
      params, carry, xs: of a stretch, for their shapes and dtypes; inputs as the cell
        takes them.
    """
    leaves, structure = jax.tree.flatten((params, carry, xs))
    shapes = [jax.ShapeDtypeStruct(tuple(map(_size, a.shape)), a.dtype) for a in leaves]
    return _by_shapes(cell, structure, tuple(shapes))


def _size(axis) -> int:
    """Of examples and steps any number does, where they are symbols (`jax.export`)."""
    return axis if isinstance(axis, int) else 8


@functools.lru_cache(maxsize=256)
def _by_shapes(cell: Cell, structure, shapes: tuple) -> Save:
    def step(params, carry, xs):
        u = jax.tree.map(lambda a: a[0], cell.vjp.project(params, xs))
        gates = cell.vjp.gates(params, carry, u)
        after, _ = cell.vjp.move(params, gates, carry)
        return GATES.keep(cell, params, carry, u, gates, after)

    params, carry, xs = structure.unflatten(shapes)
    state, kept = _numbers(carry), _numbers(jax.eval_shape(step, params, carry, xs))
    examples = max(1, math.prod(jax.tree.leaves(carry)[0].shape[:-1])) if state else 1
    weights = sum(math.prod(a.shape) for a in jax.tree.leaves(params) if a.ndim > 1)
    worth = weights * examples >= WORTH * kept  # (1)
    return GATES if kept and worth and kept <= ROOM * state else STATES  # (2)


def _numbers(tree: PyTree) -> int:
    return sum(
        math.prod(a.shape) for a in jax.tree.leaves(tree) if trees.is_floating(a)
    )
