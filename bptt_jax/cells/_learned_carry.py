"""An initial state that is learnt."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax._factory import expect, factory
from bptt_jax.cells._with_params import with_params
from bptt_jax.types import Cell, PyTree, Sum


class LearnedCarryParams(NamedTuple):
    """The inner cell's parameters, and the initial carry of one example."""

    cell: PyTree
    carry: PyTree


@factory
def learned_carry(cell: Cell) -> Cell:
    """The cell with an initial carry that is a parameter, at first the cell's own.

    Its gradient comes by way of `init_carry`: from the caller's own call, and from each
    reset. Params: `LearnedCarryParams(cell, carry)`, carry leaves `[H]`.

    >>> from bptt_jax import cells
    >>> cell = cells.learned_carry(cells.gru(3, 8))
    """
    expect(Cell, cell=cell)
    inner = with_params(cell, lambda p: p.cell)

    def init(key):
        params = cell.init(key)
        return LearnedCarryParams(params, cell.init_carry(params, ()))

    def init_carry(p, batch_shape):
        def spread(a):
            return jnp.broadcast_to(a, (*batch_shape, *a.shape))

        return jax.tree.map(spread, p.carry)

    def factors(p, xs, carries, coeffs, deltas):
        of_params, d_xs = inner.vjp.factors(p, xs, carries, coeffs, deltas)
        K = trees.length(carries)  # a step of which gives nothing: resets add to it
        zeros = [
            Sum(jnp.zeros((K, *a.shape), a.dtype))
            for a in trees.floats(p.carry, p.carry)
        ]
        return LearnedCarryParams(of_params, trees.fill(p.carry, zeros)), d_xs

    of_cell = cell.couplings

    def couplings(f, p):
        return p._replace(cell=of_cell(f, p.cell))  # pyright: ignore[reportOptionalCall]

    return inner._replace(
        init=init,
        init_carry=init_carry,
        vjp=inner.vjp._replace(factors=factors),
        name=f"learned_carry({cell.name})",
        couplings=None if of_cell is None else couplings,
    )
