"""A layer whose outputs are the losses of its steps."""

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.layers._judged import judged
from bptt_jax.types import Cell, Layer, Objective


def over_examples(losses):
    return losses.sum(
        tuple(range(1, losses.ndim)), dtype=trees.at_least_float32(losses.dtype)
    )


@factory
def with_loss(layer: Layer | Cell, objective: Objective) -> Layer:
    """Outputs the loss of each step, `[K]`: the layer's own outputs stay in the stretch.

    Args:
      layer: its outputs go to the objective.
      objective: `(ys, side.targets) -> losses [K, ...]`, see `bptt_jax.objectives`; or a
        tree of such, of which each leaf is one loss: several figures of one pass.

    Returns:
      A layer with outputs `[K]`: losses summed over the batch, zero at masked steps,
      times the weights where the targets are `Weighted`. So the outputs of the whole
      sequence (logits over a vocabulary, say) never exist at once: a readout whose outputs
      are larger than its inputs runs again on the way back. `with_losses` leaves the
      examples apart.

    >>> from bptt_jax import cells, layers, objectives
    >>> layer = layers.with_loss(cells.lstm(3, 8), objectives.squared_error)
    """
    return judged(layer, objective, over_examples, with_loss)
