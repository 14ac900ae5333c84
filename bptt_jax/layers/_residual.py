"""A residual connection around a layer (He, Zhang, Ren, Sun 2016)."""

import weakref
from collections.abc import Callable

import jax

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.layers._lift import lift
from bptt_jax.layers._stack import stack
from bptt_jax.types import Cell, Layer

_INSIDE: weakref.WeakKeyDictionary[Callable, Layer] = weakref.WeakKeyDictionary()
"""By `fwd`: the layer that a residual connection is around."""


def inside(layer: Layer) -> Layer | None:
    """The layer that a residual connection is around; None: it is another layer."""
    return _INSIDE.get(layer.fwd)


@factory
def residual(layer: Layer | Cell | None = None, **named: Layer | Cell) -> Layer:
    """`ys = xs + layer(xs)`; inputs and outputs have one shape.

    The sum is in the dtype of the layer's outputs, whatever that of the inputs: of a block
    that computes in bfloat16 the outputs are bfloat16, of float32 inputs, too. Params and
    carry are those of the layer.

    Args:
      layer: what is in the block.
      named: `layers.stack(**named)` in its place: params and carry are dicts by these
        names.

    Raises:
      ValueError: outputs of another shape, or both `layer` and names.

    >>> from bptt_jax import cells, layers
    >>> block = layers.residual(cells.gru(8, 8))
    >>> block = layers.residual(norm=layers.layer_norm(8), memory=cells.gru(8, 8))
    """
    if named and layer is not None:
        raise ValueError(
            f"residual: expected a layer or names of layers, got both: {', '.join(named)}"
        )
    inner = stack(**named) if named else lift(layer)  # pyright: ignore[reportArgumentType]
    return _around(inner)


def _around(layer: Layer) -> Layer:
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
    _INSIDE[fwd] = layer
    return layer._replace(fwd=fwd, bwd=bwd, over=over)


def _clean(xs, side):
    return xs if side.mask is None else trees.only(side.mask, xs)
