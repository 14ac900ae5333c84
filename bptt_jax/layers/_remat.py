"""Memory for time, in one word."""

from bptt_jax._factory import factory
from bptt_jax.layers._lift import lift
from bptt_jax.types import Cell, Layer


@factory
def remat(layer: Layer | Cell) -> Layer:
    """The same layer with no residuals: a stretch runs again before it is pulled back.

    Between stretches nothing is stored but the carry at the start of each (and the
    outputs, which the caller has anyway): O(T/K·B·H) instead of O(T·B·H), for one more
    forward pass. Chen, Xu, Zhang, Guestrin (2016), "Training deep nets with sublinear
    memory cost".

    >>> from bptt_jax import cells, layers
    >>> lean = layers.remat(cells.lstm(3, 8))
    """
    layer = lift(layer)

    def fwd(params, carry, xs, side):
        carry, ys, _ = layer.fwd(params, carry, xs, side)
        return carry, ys, ()

    def bwd(params, carry, xs, side, ys, _, d_carry, d_ys):
        _, ys, residuals = layer.fwd(params, carry, xs, side)
        return layer.bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys)

    inner = layer.watched
    watched = None if inner is None else lambda watch: remat(inner(watch))
    return layer._replace(fwd=fwd, bwd=bwd, watched=watched)
