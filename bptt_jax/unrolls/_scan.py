"""The reference: a loop over single steps, differentiated by JAX."""

import functools

import jax
from jax import lax

from bptt_jax import layers
from bptt_jax.cells import recognised, with_side
from bptt_jax.types import Cell, Layer, PyTree, Sections, Side
from bptt_jax.unrolls._door import (
    arrays,
    check,
    in_given_shapes,
    lift,
    refuse,
    spread,
)
from bptt_jax.unrolls._through import through


def scan(
    layer: Layer | Cell | Sections,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    side: Side = Side(),
    *,
    length: int | None = None,
    context: PyTree = (),
) -> tuple[PyTree, PyTree]:
    """`lax.scan` over steps; JAX differentiates it, in forward mode too.

    For a cell it is, as a loop in Python,

        for t in range(T):
            carry, ys[t] = cell.step(params, carry, xs[t])

    and for a layer its `fwd` over stretches of one step. It is what the other unrolls
    are checked against, and the leanest for one `jax.jvp` (`both_modes` has forward mode,
    too). `layers.recurrent`'s `on_d_carry` does not act here: it edits a hand-derived
    backward.

    Args:
      layer: a cell, a layer, or `models.sections`.
      params: its parameters.
      carry: the state before the first step, leaves `[..., H]`.
      xs: inputs, leaves `[T, ..., I]`; None: no inputs, with `length`.
      side: masks, resets, keys, targets; see `Side`.
      length: the number of steps, where `xs` is None.
      context: what is constant in time, for parts that see it, as of `bptt`.

    Returns:
      The state after the last step, and the outputs `[T, ..., O]`.

    Cost of its gradient: memory O(T) with a large factor (14 to 18 floats for each
    hidden unit and step with an LSTM), and a product of weight-gradient size a step.
    """
    if isinstance(layer, Sections):
        params = layers.with_context(params, context)
        return through(scan, layer, params, carry, xs, side, length)[0]
    arguments = arrays(params, carry, xs, side, length, context)
    if isinstance(layer, Cell):
        return _scan_cell(layer, *arguments)
    refuse(lift(layer), *arguments)
    return _scan_layer(layer, *arguments)


@functools.partial(jax.jit, static_argnums=0)
def _scan_cell(cell, params, carry, xs, side):
    whole, given = lift(cell), (params, carry, xs, side)
    check(whole, *given)
    carry = spread(whole, *given)
    cell = recognised(cell, params, carry, (xs, side.keys) if cell.keyed else xs)
    cell, xs = with_side(cell, xs, side)
    return in_given_shapes(
        lambda: lax.scan(lambda c, x: cell.step(params, c, x), carry, xs), whole, *given
    )


@functools.partial(jax.jit, static_argnums=0)
def _scan_layer(layer, params, carry, xs, side):
    given = params, carry, xs, side
    check(layer, *given)
    carry = spread(layer, *given)

    def step(carry, at):
        x, s = jax.tree.map(lambda a: a[None], at)
        carry, ys, _ = layer.fwd(params, carry, x, s)
        return carry, jax.tree.map(lambda a: a[0], ys)

    return in_given_shapes(lambda: lax.scan(step, carry, (xs, side)), layer, *given)
