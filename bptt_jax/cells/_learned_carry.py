"""An initial state that is learnt."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax._factory import expect, factory
from bptt_jax.cells._gates import gates_within
from bptt_jax.types import Cell, PyTree, StepVJP


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
    project, forward, linearize, backward, contract = cell.vjp

    def init(key):
        params = cell.init(key)
        return LearnedCarryParams(params, cell.init_carry(params, ()))

    def init_carry(p, batch_shape):
        def spread(a):
            return jnp.broadcast_to(a, (*batch_shape, *a.shape))

        return jax.tree.map(spread, p.carry)

    def learned_contract(p, xs, carries, coeffs, deltas):
        d_cell, d_xs = contract(p.cell, xs, carries, coeffs, deltas)
        zeros = [jnp.zeros_like(a) for a in trees.floats(p.carry, p.carry)]
        return LearnedCarryParams(d_cell, trees.fill(p.carry, zeros)), d_xs

    return cell._replace(
        init=init,
        init_carry=init_carry,
        step=lambda p, c, x: cell.step(p.cell, c, x),
        gates=gates_within(cell, lambda p, cs, us: (p.cell, cs, us)),
        vjp=StepVJP(
            lambda p, xs: project(p.cell, xs),
            lambda p, c, u: forward(p.cell, c, u),
            lambda p, cs, us, nexts: linearize(p.cell, cs, us, nexts),
            lambda p, coeffs, d_c, d_y: backward(p.cell, coeffs, d_c, d_y),
            learned_contract,
        ),
    )
