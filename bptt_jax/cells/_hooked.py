"""Looking at, and editing, the cotangent that comes from later steps.

With d s_t what comes to step t from later steps,

    (1)  hooked:    d s_{t-1}, delta_t = inner backward of (hook(d s_t, aux_t), d y_t)
    (2)  watching:  delta_t = (inner delta_t, d s_t)
"""

from typing import NamedTuple

from jax import Array

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.types import Cell, OnDCarry, PyTree


class Hook(NamedTuple):
    """What goes beside the inputs of a hooked cell: `aux` of the step, and its mask."""

    aux: PyTree
    real: Array | None


@factory
def hooked(cell: Cell, on_d_carry: OnDCarry) -> Cell:
    """`x` is `(x, Hook)`; (1) at real steps. Users reach it by `layers.recurrent`."""
    inner = cell.vjp

    def project(params, inputs):
        xs, beside = inputs
        return inner.project(params, xs), beside

    def gates(params, carry, u):
        return inner.gates(params, carry, u[0]), u[1]

    def move(params, g, carry):
        return inner.move(params, g[0], carry)

    def local(params, g, carries, nexts):
        return inner.local(params, g[0], carries, nexts), g[1]

    def backward(params, coeffs, d_carry, d_y):  # (1)
        coeffs, (aux, real) = coeffs
        edited = on_d_carry(d_carry, aux)
        edited = edited if real is None else trees.where(real, edited, d_carry)
        return inner.backward(params, coeffs, edited, d_y)

    def factors(params, inputs, carries, coeffs, deltas):
        of_params, d_xs = inner.factors(params, inputs[0], carries, coeffs[0], deltas)
        return of_params, (d_xs, None)

    vjp = inner._replace(
        project=project, gates=gates, move=move, local=local, backward=backward,
        factors=factors,
    )  # fmt: skip
    return cell._replace(
        step=lambda params, carry, x: cell.step(params, carry, x[0]), vjp=vjp
    )


@factory
def watching(cell: Cell) -> Cell:
    """The cell whose deltas show d s_t beside, (2)."""
    inner = cell.vjp

    def backward(params, coeffs, d_carry, d_y):
        d_before, delta = inner.backward(params, coeffs, d_carry, d_y)
        return d_before, (delta, d_carry)

    def factors(params, xs, carries, coeffs, deltas):
        return inner.factors(params, xs, carries, coeffs, deltas[0])

    return cell._replace(vjp=inner._replace(backward=backward, factors=factors))
