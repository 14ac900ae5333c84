"""A cell whose arithmetic is done in one dtype, whatever that of its parameters."""

from functools import partial

from bptt_jax import _pytrees as trees
from bptt_jax._factory import expect, factory
from bptt_jax.cells._with_params import with_params
from bptt_jax.types import Cell


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
    inner = with_params(cell, cast)
    project, gates, move, *_, factors = inner.vjp
    return inner._replace(
        init_carry=lambda p, batch_shape: cast(cell.init_carry(p, batch_shape)),
        step=lambda p, c, x: inner.step(p, cast(c), cast(x)),
        vjp=inner.vjp._replace(
            project=lambda p, xs: project(p, cast(xs)),
            gates=lambda p, c, u: gates(p, cast(c), u),
            move=lambda p, g, c: move(p, g, cast(c)),
            factors=lambda p, xs, *rest: factors(p, cast(xs), *rest),
        ),
    )
