"""A cell whose arithmetic is done in one dtype, whatever that of its parameters."""

from functools import partial

from bptt_jax import _pytrees as trees
from bptt_jax._factory import expect, factory
from bptt_jax.cells._gates import gates_within
from bptt_jax.types import Cell, StepVJP


@factory
def in_dtype(cell: Cell, dtype) -> Cell:
    """Params, carry and inputs are cast to `dtype` (flax's `dtype`); None changes nothing.

    Parameters keep their own dtype and so do their gradients, which are sums in at
    least float32.
    """
    expect(Cell, cell=cell)
    if dtype is None:
        return cell
    cast = partial(trees.cast_floating, dtype=dtype)
    project, forward, linearize, backward, contract = cell.vjp
    return cell._replace(
        init_carry=lambda p, batch_shape: cast(cell.init_carry(p, batch_shape)),
        step=lambda p, c, x: cell.step(cast(p), cast(c), cast(x)),
        gates=gates_within(cell, lambda p, cs, us: (cast(p), cs, us)),
        vjp=StepVJP(
            lambda p, xs: project(cast(p), cast(xs)),
            lambda p, c, u: forward(cast(p), c, u),
            lambda p, cs, us, nexts: linearize(cast(p), cs, us, nexts),
            lambda p, coeffs, d_c, d_y: backward(cast(p), coeffs, d_c, d_y),
            lambda p, xs, *rest: contract(cast(p), cast(xs), *rest),
        ),
    )
