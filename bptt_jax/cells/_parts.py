"""What is made of the parts of a cell's derivative: the step, its coefficients, its
gradient.
"""

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax.cells._products import outer_sum, total
from bptt_jax.types import (
    Blocks,
    Cell,
    CellCouplings,
    CellStep,
    Gates,
    Outer,
    PyTree,
    StepVJP,
    Sum,
    Summed,
    Terms,
)

FACTORS = Outer, Sum, Blocks, Terms, Summed


def step_of(vjp: StepVJP) -> CellStep:
    """The step that a derivative is that of."""

    def step(params, carry, x):
        gates = vjp.gates(params, carry, vjp.project(params, x))
        return vjp.move(params, gates, carry)

    return step


def coupled(*names: str) -> CellCouplings:
    """`Cell.couplings` where the matrices are the parameters of these names."""

    def couplings(f, params):
        return params | {name: f(params[name]) for name in names}

    return couplings


def forward(cell: Cell, params: PyTree, carry: PyTree, u: PyTree) -> tuple:
    """One step from its projected input: `(carry, y)`, `move` of `gates`."""
    return cell.vjp.move(params, cell.vjp.gates(params, carry, u), carry)


def linearize(
    cell: Cell, params: PyTree, carries: PyTree, us: PyTree, nexts: PyTree
) -> PyTree:
    """The coefficients of all steps at once, `local` of `gates`.

    Args:
      carries, nexts: before and after each step, leaves `[K, ..., H]`.
      us: projected inputs, leaves `[K, ...]`.
    """
    gates = cell.vjp.gates(params, carries, us)
    return cell.vjp.local(params, gates, carries, nexts)


def contract(
    cell: Cell, params: PyTree, xs: PyTree, carries: PyTree, coeffs, deltas
) -> tuple[PyTree, PyTree]:
    """`(d_params, d_xs)` of all steps at once: one product for each weight."""
    factors, d_xs = cell.vjp.factors(params, xs, carries, coeffs, deltas)
    return summed(params, factors), d_xs


def summed(params: PyTree, factors: PyTree) -> PyTree:
    """The gradient that factors are those of: `d_params`, in at least float32.

    Raises:
      TypeError, ValueError: `factors` is not a factor for each leaf of `params`.
    """
    flat, structure = jax.tree_util.tree_flatten_with_path(factors, is_leaf=is_factor)
    try:
        leaves = structure.flatten_up_to(params)
    except ValueError as error:
        raise ValueError(
            f"factors: expected a tree like params, {jax.tree.structure(params)}, got "
            f"{structure}"
        ) from error
    each = zip(flat, leaves, strict=True)
    return structure.unflatten([_gradient(path, f, a) for (path, f), a in each])


def _gradient(path: tuple, factor, param):
    if factor is None:
        return None
    where = f"params{jax.tree_util.keystr(path)}"
    if not is_factor(factor):
        raise TypeError(
            f"factors: expected an Outer, Sum, Blocks, Terms or Summed for {where}, got "
            f"{type(factor).__name__}"
        )
    shape = jnp.shape(param)
    d = _sum(factor, len(shape))
    if jnp.shape(d) != shape:
        raise ValueError(
            f"factors: expected a gradient {list(shape)} for {where}, got "
            f"{list(jnp.shape(d))} from its {type(factor).__name__}"
        )
    return d


def is_factor(node) -> bool:
    return node is None or isinstance(node, FACTORS)


def _sum(factor, rank: int):
    match factor:
        case Outer(a, d):
            return outer_sum(a, d)
        case Sum(d):
            return total(d, rank)
        case Blocks(blocks, axis):
            return jnp.concatenate([_sum(block, rank) for block in blocks], axis)
        case Terms(terms):
            first, *others = (_sum(term, rank) for term in terms)
            for other in others:
                first = trees.add(first, other)
            return first
        case Summed(d):
            return d


def named_gates(cell: Cell, params: PyTree, carries: PyTree, us: PyTree) -> dict:
    """`{name: [K, ..., H]}`, the gates of all steps at once; {} where none has a name.

    Args:
      carries: before each step, leaves `[K, ..., H]`.
      us: projected inputs, leaves `[K, ...]`.
    """
    gates = cell.vjp.gates(params, carries, us)
    found = jax.tree.leaves(gates, is_leaf=lambda node: isinstance(node, Gates))
    return next((node.named for node in found if isinstance(node, Gates)), {})
