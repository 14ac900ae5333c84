"""Both directions of time."""

import jax
import jax.numpy as jnp

from bptt_jax import unrolls
from bptt_jax._factory import factory
from bptt_jax.types import Cell, Layer, Unroll, Whole
from bptt_jax.wholes._directions import directions, of_pair


@factory
def bidirectional(
    forward: Layer | Cell,
    backward: Layer | Cell | None = None,
    *,
    unroll: Unroll = unrolls.bptt,
) -> Whole:
    """Two layers, one in each direction of time, side by side.

    `ys[t]` is what the one has heard up to step t, and next to it what the other has heard
    from the end back to step t: `[T, ..., I] -> [T, ..., O + O']`. Padding is passed over
    from either side, and with resets each sequence of a row is run from its own end.

    Args:
      forward: runs from the first step to the last.
      backward: runs from the last step to the first; None: another one like `forward`.
      unroll: runs both; the model's own unroll is for its layers.

    Returns:
      A `Whole`; params are a pair. Inputs are `[T, ..., I]`, or symbols `[T, ...]`, which are
      integers. Each direction begins with its layer's initial carry.

    Cost: time and memory of the two unrolls.

    Schuster, Paliwal (1997), "Bidirectional recurrent neural networks".

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import Side, cells, wholes
    >>> both = wholes.bidirectional(cells.gru(3, 4))
    >>> ys, _ = both.apply(both.init(jax.random.key(0)), jnp.ones((7, 2, 3)), Side())
    >>> ys.shape
    (7, 2, 8)
    """
    pair, run = directions(forward, backward, unroll)

    def apply(params, ys, side):
        return jax.tree.map(_joined, *run(params, ys, side)), side

    return of_pair(bidirectional, pair, unroll, apply)


def _joined(ys, zs):
    return jnp.concatenate([ys, zs], -1)
