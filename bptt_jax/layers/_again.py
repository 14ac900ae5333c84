"""A stretch that runs again before it is pulled back."""

from bptt_jax.types import Layer


def again(layer: Layer) -> Layer:
    """The layer with no residuals."""

    def fwd(params, carry, xs, side):
        carry, ys, _ = layer.fwd(params, carry, xs, side)
        return carry, ys, ()

    def bwd(params, carry, xs, side, ys, _, d_carry, d_ys):
        _, ys, residuals = layer.fwd(params, carry, xs, side)
        return layer.bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys)

    return layer._replace(fwd=fwd, bwd=bwd, only_recurrent=False)
