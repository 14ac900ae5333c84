"""A residual connection around a layer (He, Zhang, Ren, Sun 2016)."""

import jax

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.layers._lift import lift
from bptt_jax.types import Cell, Layer


@factory
def residual(layer: Layer | Cell) -> Layer:
    """`ys = xs + layer(xs)`; inputs and outputs have one shape.

    >>> from bptt_jax import cells, layers
    >>> block = layers.residual(cells.gru(8, 8))
    """
    layer = lift(layer)

    def fwd(params, carry, xs, side):
        carry, ys, kept = layer.fwd(params, carry, xs, side)
        if jax.tree.map(jax.numpy.shape, xs) != jax.tree.map(jax.numpy.shape, ys):
            raise ValueError(
                "residual: inputs and outputs must have one shape, got "
                f"{jax.tree.map(jax.numpy.shape, xs)} and {jax.tree.map(jax.numpy.shape, ys)}"
            )
        return carry, trees.add(ys, _clean(xs, side)), (ys, kept)

    def bwd(params, carry, xs, side, _, residuals, d_carry, d_ys):
        ys, kept = residuals
        d_params, d_carry, d_xs, d_targets = layer.bwd(
            params, carry, xs, side, ys, kept, d_carry, d_ys
        )
        return d_params, d_carry, trees.add(d_xs, _clean(d_ys, side)), d_targets

    inner = layer.over
    over = None if inner is None else lambda f: residual(inner(f))
    return layer._replace(fwd=fwd, bwd=bwd, over=over)


def _clean(xs, side):
    return xs if side.mask is None else trees.only(side.mask, xs)
