"""Steps that have not been.

With m_t the flag of step t (True: it is real) and s the state,

    (1)  s_t = s'_t  if m_t else  s_{t-1}              s'_t, y'_t: of the inner cell
    (2)  y_t = the output leaves of s_t;  where the output is no state: y'_t if m_t else 0

    (3)  if m_t: the inner backward of (d s_t, d y_t)
    (4)  else:   d s_{t-1} = d s_t, plus d y_t in the leaves that are outputs; delta_t = 0

Inputs at steps that have not been are replaced by zeros before anything reads them.
"""

import jax

from bptt_jax import _pytrees as trees
from bptt_jax._factory import expect, factory
from bptt_jax.types import Cell, StepVJP


def add_output(cell: Cell, d_carry, d_y):
    """The cotangent of the state when its output leaves take that of the output.

    Where the output is no part of the state it is returned as it is.
    """
    if not cell.output:
        return d_carry
    leaves, structure = jax.tree.flatten(d_carry, is_leaf=lambda a: a is None)
    numbered = structure.unflatten(range(structure.num_leaves))
    for i, d in zip(
        jax.tree.leaves(cell.output(numbered)), jax.tree.leaves(d_y), strict=True
    ):
        leaves[i] = leaves[i] + d
    return structure.unflatten(leaves)


@factory
def masked(cell: Cell) -> Cell:
    """`x` is `(x, real)`: where `real` is False the step has not been.

    Users reach it by `Side(mask=…)`. The hand-derived derivative of the inner cell is
    kept. No array is stored for it.
    """
    expect(Cell, cell=cell)
    project, gates, move, local, backward, factors = cell.vjp

    def clean(inputs):
        x, real = inputs
        return trees.only(real, x), real

    def kept(real, carry, after, y):
        after = trees.where(real, after, carry)  # (1)
        return after, cell.output(after) if cell.output else trees.only(real, y)  # (2)

    def step(params, carry, inputs):
        x, real = clean(inputs)
        return kept(real, carry, *cell.step(params, carry, x))

    def masked_project(params, inputs):
        xs, reals = clean(inputs)
        return project(params, xs), reals

    def masked_gates(params, carry, u):
        u, real = u
        return gates(params, carry, u), real

    def masked_move(params, g, carry):
        g, real = g
        return kept(real, carry, *move(params, g, carry))

    def masked_local(params, g, carries, nexts):
        g, reals = g
        return local(params, g, carries, nexts), reals

    def masked_backward(params, coeffs, d_carry, d_y):
        coeffs, real = coeffs
        inner = trees.only(real, (d_carry, d_y))
        d_before, delta = backward(params, coeffs, *inner)  # (3)
        held = add_output(cell, d_carry, d_y)
        return trees.where(real, d_before, held), trees.only(real, delta)  # (4)

    def masked_factors(params, inputs, carries, coeffs, deltas):
        xs, reals = clean(inputs)
        of_params, d_xs = factors(params, xs, carries, coeffs[0], deltas)
        return of_params, (trees.only(reals, d_xs), None)

    return cell._replace(
        step=step,
        keyed=False,
        vjp=StepVJP(
            masked_project, masked_gates, masked_move, masked_local, masked_backward,
            masked_factors,
        ),
    )  # fmt: skip
