"""A cell that takes its parameters out of something else."""

from collections.abc import Callable

from bptt_jax.types import Cell, PyTree, StepVJP


def with_params(cell: Cell, take: Callable[[PyTree], PyTree]) -> Cell:
    """The cell whose functions are given `take(params)`.

    Factors and couplings are those of what is taken: whoever wraps so puts them back in
    the place that they have in the whole.

    Args:
      take: of the parameters, those of `cell`.
    """
    v = cell.vjp
    return cell._replace(
        step=lambda p, c, x: cell.step(take(p), c, x),
        vjp=StepVJP(
            project=lambda p, xs: v.project(take(p), xs),
            gates=lambda p, c, u: v.gates(take(p), c, u),
            move=lambda p, g, c: v.move(take(p), g, c),
            local=lambda p, g, cs, nexts: v.local(take(p), g, cs, nexts),
            backward=lambda p, coeffs, d_c, d_y: v.backward(take(p), coeffs, d_c, d_y),
            factors=lambda p, *at: v.factors(take(p), *at),
        ),
    )
