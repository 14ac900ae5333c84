"""States that begin anew.

With r_t the flag of step t and s_0(θ) the initial state,

    (1)  s*_{t-1} = s_0(θ)  if r_t else  s_{t-1};        s_t, y_t = inner(s*_{t-1}, x_t)
    (2)  d s*_{t-1} = the inner backward of (d s_t, d y_t)
    (3)  d s_{t-1} = 0  if r_t else  d s*_{t-1}
    (4)  d θ += Σ_{t: r_t} d s*_{t-1} ∂s_0/∂θ            a learned initial state
"""

from collections.abc import Callable

import jax
from jax.extend import core

from bptt_jax import _pytrees as trees
from bptt_jax import _shardings as shardings
from bptt_jax._factory import expect, factory
from bptt_jax.cells._parts import is_factor
from bptt_jax.types import Cell, PyTree, StepVJP, Sum, Summed, Terms


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
        read = _read(lambda p: cell.init_carry(p, flags.shape[1:]), params)
        of_initial = _of_initial(begin, read, params, carries, flags, d_begun)  # (4)
        both = jax.tree.map(_with_term, of_params, of_initial, is_leaf=is_factor)
        return both, (d_xs, None)

    return cell._replace(
        step=step,
        keyed=False,
        vjp=StepVJP(
            reset_project, reset_gates, reset_move, reset_local, reset_backward,
            reset_factors,
        ),
    )  # fmt: skip


def _read(initial: Callable, params: PyTree) -> list[bool]:
    """Of each leaf of params whether a trace of the initial state reads it."""
    jaxpr = jax.make_jaxpr(initial)(params).jaxpr
    found = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    for eqn in reversed(jaxpr.eqns):
        if not found.isdisjoint(eqn.outvars):
            found.update(v for v in eqn.invars if not isinstance(v, core.Literal))
    return [v in found for v in jaxpr.invars]


def _of_initial(
    begin: Callable, read: list[bool], params: PyTree, carries, flags, d_begun
) -> PyTree:
    """The factors of (4); None for what the initial state is not made of."""
    leaves, structure = jax.tree.flatten(params)
    chosen = [i for i, a in enumerate(leaves) if read[i] and trees.is_floating(a)]
    made: list = [None] * len(leaves)
    if not chosen:
        return structure.unflatten(made)

    def back(carry, reset, d):
        def begun(some):
            of = dict(zip(chosen, some, strict=True))
            full = [of.get(i, a) for i, a in enumerate(leaves)]
            return begin(structure.unflatten(full), carry, reset)

        return trees.pullback(begun, [leaves[i] for i in chosen])[1](d)[0]

    a_step = [a[0] for a in jax.tree.leaves(carries)]
    small = sum(leaves[i].size for i in chosen) <= sum(a.size for a in a_step)
    if small and not any(map(shardings.explicit, a_step)):
        each = map(Sum, jax.vmap(back)(carries, flags, d_begun))  # of each step
    else:
        each = map(Summed, back(carries, flags, d_begun))
    for i, factor in zip(chosen, each, strict=True):
        made[i] = factor
    return structure.unflatten(made)


def _with_term(factor, of_initial):
    return factor if of_initial is None else Terms((factor, of_initial))
