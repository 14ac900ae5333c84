"""One step after another, each a few kernels: what every other loop is defined as."""

from collections.abc import Callable

from bptt_jax import _pytrees as trees
from bptt_jax.cells import contract
from bptt_jax.loops._unrolled import scan
from bptt_jax.types import Cell, Loop, PyTree


def forward(scan: Callable, cell, params, carry, inputs, keep, length):
    """`LoopForward` by a `scan(step, carry, xs, length, reverse)`."""
    us = cell.vjp.project(params, inputs)

    def step(carry, u):
        gates = cell.vjp.gates(params, carry, u)
        after, y = cell.vjp.move(params, gates, carry)
        return after, (y, keep(params, carry, u, gates, after))

    carry, (ys, kept) = scan(step, carry, us, length)
    return carry, ys, kept


def recurrence(
    cell: Cell,
    params: PyTree,
    coeffs: PyTree,
    d_carry: PyTree,
    d_ys: PyTree,
    scan: Callable = scan,
) -> tuple[PyTree, PyTree]:
    """`(d_carry, deltas)`: the cotangent of the carry, step by step back, and the deltas."""

    def step(d_carry, at):
        return cell.vjp.backward(params, at[0], d_carry, at[1])

    return scan(step, d_carry, (coeffs, d_ys), reverse=True)


def backward(
    scan: Callable,
    cell,
    save,
    params,
    inputs,
    carry,
    nexts,
    kept,
    d_carry,
    d_ys,
):
    """`LoopBackward` by a `scan`."""
    carries = trees.before(carry, nexts)
    coeffs = save.coeffs(cell, params, inputs, carries, nexts, kept)
    d_carry, deltas = recurrence(cell, params, coeffs, d_carry, d_ys, scan)
    d_params, d_inputs = contract(cell, params, inputs, carries, coeffs, deltas)
    return d_params, d_carry, d_inputs


def _forward(cell, params, carry, inputs, keep, length):
    return forward(scan, cell, params, carry, inputs, keep, length)


def _backward(cell, save, *stretch):
    return backward(scan, cell, save, *stretch)


def _supports(cell, save, shapes, platform):
    del cell, save, shapes, platform
    return None


step_by_step = Loop("loops.step_by_step", _forward, _backward, _supports)
"""`lax.scan` over steps, each way, and what is parallel in time at once for all of them. It
runs every cell, on every platform.
"""
