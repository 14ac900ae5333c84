"""A cell with another derivative than its own, for tests that want a wrong one."""

from collections.abc import Callable

import jax

from bptt_jax.types import Cell, Summed


def with_parts(cell: Cell, **parts: Callable) -> Cell:
    """The cell with parts of its derivative replaced.

    `contract`, `(params, xs, carries, coeffs, deltas) -> (d_params, d_xs)`, stands in the
    place of `factors`.
    """
    if "contract" in parts:
        parts["factors"] = factors_of(parts.pop("contract"))
    return cell._replace(vjp=cell.vjp._replace(**parts))


def factors_of(contract: Callable) -> Callable:
    """`factors` of which nothing is known but their sum."""

    def factors(*at):
        d_params, d_xs = contract(*at)
        return jax.tree.map(Summed, d_params), d_xs

    return factors
