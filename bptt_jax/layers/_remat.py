"""Memory for time, in one word."""

from bptt_jax._factory import factory
from bptt_jax.layers._again import again
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
    inner = layer.over
    over = None if inner is None else lambda f: remat(inner(f))
    return again(layer)._replace(over=over)
