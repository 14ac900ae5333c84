"""States that begin anew.

With r_t the flag of step t and s_0(θ) the initial state,

    (1)  s*_{t-1} = s_0(θ)  if r_t else  s_{t-1};        s_t, y_t = inner(s*_{t-1}, x_t)
    (2)  d s*_{t-1} = the inner backward of (d s_t, d y_t)
    (3)  d s_{t-1} = 0  if r_t else  d s*_{t-1}
    (4)  d θ += Σ_{t: r_t} d s*_{t-1} ∂s_0/∂θ            a learned initial state
"""

import jax

from bptt_jax import _pytrees as trees
from bptt_jax import _shardings as shardings
from bptt_jax._factory import expect, factory
from bptt_jax.cells._parts import is_factor
from bptt_jax.types import Cell, StepVJP, Summed, Terms


@factory
def resets(cell: Cell) -> Cell:
    """`x` is `(x, reset)`: where `reset` is True the state is the initial one *before*
    the step, and no gradient passes further back.

    Users reach it by `Side(resets=…)`. The hand-derived derivative of the inner cell is
    kept.
    """
    expect(Cell, cell=cell)
    project, gates, move, local, backward, factors = cell.vjp

    def begin(params, carry, reset):  # (1)
        initial = lambda params: cell.init_carry(params, reset.shape)
        fresh = shardings.made_like(carry, initial, params)
        fresh = jax.tree.map(lambda f, c: f.astype(c.dtype), fresh, carry)
        return trees.where(reset, fresh, carry)

    def step(params, carry, inputs):
        x, reset = inputs
        return cell.step(params, begin(params, carry, reset), x)

    def reset_project(params, inputs):
        xs, flags = inputs
        return project(params, xs), flags

    def reset_gates(params, carry, u):
        u, reset = u
        return gates(params, begin(params, carry, reset), u), reset

    def reset_move(params, g, carry):
        g, reset = g
        return move(params, g, begin(params, carry, reset))

    def reset_local(params, g, carries, nexts):
        g, flags = g
        return local(params, g, begin(params, carries, flags), nexts), flags

    def reset_backward(params, coeffs, d_carry, d_y):
        coeffs, reset = coeffs
        d_begun, delta = backward(params, coeffs, d_carry, d_y)  # (2)
        return trees.only(~reset, d_begun), (delta, d_begun)  # (3)

    def reset_factors(params, inputs, carries, coeffs, deltas):
        (xs, flags), (deltas, d_begun) = inputs, deltas
        begun = begin(params, carries, flags)
        of_params, d_xs = factors(params, xs, begun, coeffs[0], deltas)
        _, back = trees.pullback(lambda p: begin(p, carries, flags), params)
        (d_initial,) = back(d_begun)  # (4)
        both = jax.tree.map(_with_term, of_params, d_initial, is_leaf=is_factor)
        return both, (d_xs, None)

    return cell._replace(
        step=step,
        keyed=False,
        vjp=StepVJP(
            reset_project, reset_gates, reset_move, reset_local, reset_backward,
            reset_factors,
        ),
    )  # fmt: skip


def _with_term(factor, d):
    return None if d is None else Terms((factor, Summed(d)))
