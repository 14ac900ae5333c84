"""A layer whose outputs are the losses of its steps, of each example by itself."""

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.layers._judged import judged
from bptt_jax.types import Cell, Layer, Objective


@factory
def with_losses(layer: Layer | Cell, objective: Objective) -> Layer:
    """Outputs the loss of each step and example, `[K, ...]`: `with_loss`, not summed.

    What a loss over examples is made of where it is no sum: weights that are a function
    of the losses, the worst examples alone, which ones are still to be learnt.

    Args:
      layer, objective: as of `with_loss`.

    Returns:
      A layer with outputs `[K, ...]` in at least float32: losses as the objective gives
      them, zero at masked steps, times the weights where the targets are `Weighted`. The
      layer's own outputs stay in the stretch, as in `with_loss`.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import Side, cells, layers, objectives, unrolls
    >>> layer = layers.with_losses(cells.gru(3, 8), objectives.squared_error)
    >>> params, side = layer.init(jax.random.key(0)), Side(targets=jnp.ones((5, 2, 8)))
    >>> carry, xs = layer.init_carry(params, (2,)), jnp.ones((5, 2, 3))
    >>> unrolls.bptt(layer, params, carry, xs, side)[1].sum(0).shape
    (2,)
    """
    return judged(layer, objective, trees.widened, with_losses)
