"""The last of each direction of time."""

import jax
import jax.numpy as jnp

from bptt_jax import unrolls
from bptt_jax._factory import factory
from bptt_jax.types import Cell, Layer, Unroll, Whole
from bptt_jax.wholes._directions import directions, of_pair
from bptt_jax.wholes._one_step import at_first, at_last, one_step


@factory
def ends(
    forward: Layer | Cell,
    backward: Layer | Cell | None = None,
    *,
    unroll: Unroll = unrolls.bptt,
) -> Whole:
    """Both directions of time, and of each what it has heard at its end.

    The outputs of one layer at the last real step, and next to them those of the other at the
    first: `[T, ..., I] -> [1, ..., O + O']`. What a class of a whole sequence is read from:
    `last` of `bidirectional` would have heard one step from the end.

    Args:
      forward, backward, unroll: as of `bidirectional`, whose parameters it has.

    Cost: time and memory of the two unrolls.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import Side, cells, wholes
    >>> both = wholes.ends(cells.gru(3, 4))
    >>> ys, _ = both.apply(both.init(jax.random.key(0)), jnp.ones((7, 2, 3)), Side())
    >>> ys.shape
    (1, 2, 8)
    """
    pair, run = directions(forward, backward, unroll)

    def apply(params, ys, side):
        to_end, to_start = run(params, ys, side)
        each = at_last(side.mask, to_end), at_first(side.mask, to_start)
        joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b], -1), *each)
        return joined, one_step(side)

    return of_pair(ends, pair, unroll, apply)
