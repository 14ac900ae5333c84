"""What is kept of each step for the way back, and what is computed again.

    member          kept beside the states             computed again
    STATES          nothing                            projected inputs, gates, coefficients
    GATES           the gates                          coefficients
    some_gates      the gates that it names            the others, by their columns; coefficients
    COEFFICIENTS    the coefficients                   nothing
    NOTHING         nothing, and no states either      the whole stretch (`layers.remat`)

States that are outputs are kept once, as outputs. Gradients are the same.
"""

import functools
import itertools
import math
from typing import Any

import jax

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax._jax import held_program
from bptt_jax.cells import linearize
from bptt_jax.layers._columns import completed
from bptt_jax.types import Cell, Gates, PyTree, Save


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
    def again(params, carries, xs):
        return cell.vjp.gates(params, carries, cell.vjp.project(params, xs))

    gates = completed(again, (params, carries, xs), kept)
    return cell.vjp.local(params, gates, carries, nexts)


GATES = Save("layers.GATES", _gates, _from_gates)
"""Memory for two products: the gates, four numbers a unit of an LSTM or a GRU."""


def _only(names: tuple[str, ...], gates: PyTree) -> PyTree:
    """None for all but the gates of these names."""

    def of(node):
        if not isinstance(node, Gates):
            return None
        named: dict[str, Any] = {
            n: a if n in names else None for n, a in node.named.items()
        }
        return Gates(named, jax.tree.map(lambda _: None, node.rest))

    return jax.tree.map(of, gates, is_leaf=lambda node: isinstance(node, Gates))


@factory
def some_gates(*names: str) -> Save:
    """Memory for a part of two products: gates by their names (`StepVJP.gates`).

    The others are computed again, by those columns of the products that they are of: of a
    GRU that keeps r and z a third, for two numbers a unit.

    Args:
      names: of gates; one that a cell has not is none of its.

    >>> from bptt_jax import cells, layers
    >>> layer = layers.recurrent(cells.gru(3, 8), save=layers.some_gates("r", "z"))
    """
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"names: expected names of gates, got {name!r}")

    def keep(cell, params, carry, u, gates, after):
        return _only(names, _gates(cell, params, carry, u, gates, after))

    shown = ", ".join(map(repr, names))
    return Save(f"layers.some_gates({shown})", keep, _from_gates)


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
LITTLE = 2**14  # numbers that a step keeps of all examples
OF_LITTLE = 100  # what each is worth where they are no more
ROOM = 2  # numbers kept for each number of the state


def by_shapes(cell: Cell, params: PyTree, carry: PyTree, xs: PyTree) -> Save:
    """What is kept where nobody said it: `GATES`, `some_gates` or `STATES`, by a rule.

    Gates are kept where, for each example and step,

        (1)  the multiply-adds that computing them again takes are at least 160 for each
             number kept, or 100 where a step of all examples keeps no more than 16,384: of
             an LSTM and a GRU I + H >= 160, or 100
        (2)  the numbers kept are at most twice those of the state: all 4H of an LSTM, of a
             GRU's 4H r and z. Where not all are, those that spare most.

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
    params, carry, xs = structure.unflatten(shapes)
    x = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), xs)
    one, room = (params, carry, x), ROOM * _numbers(carry)
    every = _kept_of_a_step(cell, *one)
    choices = {GATES: every}
    if _numbers(every) > room:  # (2)
        names = _filling(_named(every), room)
        choices = {some_gates(*some): _only(some, every) for some in names}
    sizes = {save: _numbers(kept) for save, kept in choices.items()}
    if not any(sizes.values()):
        return STATES
    spared = _spared(cell, *one, choices)
    save = max(choices, key=spared.__getitem__)
    worth = WORTH if sizes[save] > LITTLE else OF_LITTLE
    return save if spared[save] >= worth * sizes[save] else STATES  # (1)


def _kept_of_a_step(cell: Cell, params: PyTree, carry: PyTree, x: PyTree) -> PyTree:
    """The shapes of all gates that are to be kept."""

    def step(params, carry, x):
        u = _projected(cell, params, x)
        gates = cell.vjp.gates(params, carry, u)
        after, _ = cell.vjp.move(params, gates, carry)
        return _gates(cell, params, carry, u, gates, after)

    return jax.eval_shape(step, params, carry, x)


def _projected(cell: Cell, params: PyTree, x: PyTree) -> PyTree:
    us = cell.vjp.project(params, jax.tree.map(lambda a: a[None], x))
    return jax.tree.map(lambda a: a[0], us)


def _named(gates: PyTree) -> dict[str, int]:
    """How many numbers each of them is."""
    nodes = jax.tree.leaves(gates, is_leaf=lambda node: isinstance(node, Gates))
    named = [node.named for node in nodes if isinstance(node, Gates)]
    return {n: _numbers(a) for each in named for n, a in each.items() if a is not None}


def _filling(sizes: dict[str, int], room: int) -> list[tuple[str, ...]]:
    """The names of gates that have room together, and with none of the others."""
    some = [
        names
        for n in range(1, len(sizes) + 1)
        for names in itertools.combinations(sizes, n)
        if sum(sizes[name] for name in names) <= room
    ]
    return [names for names in some if not any(set(names) < set(more) for more in some)]


def _spared(cell: Cell, params, carry, x, choices: dict) -> dict:
    """Multiply-adds of a step that need not be done again, by what is kept."""

    def again(params, carry, x):
        return cell.vjp.gates(params, carry, _projected(cell, params, x))

    def rest(params, carry, x, kept):
        return completed(again, (params, carry, x), kept)

    every = _multiplied(jax.make_jaxpr(again)(params, carry, x).jaxpr)
    left = lambda kept: _multiplied(jax.make_jaxpr(rest)(params, carry, x, kept).jaxpr)
    return {save: every - left(kept) for save, kept in choices.items()}


def _multiplied(jaxpr) -> int:
    """The multiply-adds of a program's products."""
    found = 0
    for eqn in jaxpr.eqns:
        inner = held_program(eqn)
        if inner is not None:
            found += _multiplied(inner.jaxpr)
        elif eqn.primitive.name == "dot_general":
            (summed, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            result = math.prod(eqn.outvars[0].aval.shape)
            found += result * math.prod(shape[i] for i in summed)
    return found


def _numbers(tree: PyTree) -> int:
    return sum(
        math.prod(a.shape) for a in jax.tree.leaves(tree) if trees.is_floating(a)
    )
