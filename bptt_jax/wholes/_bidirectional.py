"""Both directions of time."""

import jax
import jax.numpy as jnp

from bptt_jax import layers, unrolls
from bptt_jax._factory import factory, functions
from bptt_jax.types import Cell, Layer, PyTree, Side, Unroll, Whole


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

    def init(key):
        return init_pair(pair, key)

    def apply(params, ys, side):
        return jax.tree.map(_joined, *run(params, ys, side)), side

    def over(f):
        return bidirectional(*over_pair(pair, f), unroll=unroll)

    recurs = any(layer.over for layer in pair)
    return Whole(init, apply, over if recurs else None)


def directions(forward, backward, unroll: Unroll):
    """The two layers, and `(params, xs, side) -> (outputs of one, of the other)`."""
    functions(unroll=unroll)
    ahead = layers.lift(forward, "forward")
    back = ahead if backward is None else layers.lift(backward, "backward")
    runs = unroll, unrolls.reverse(unroll)

    def run(params, xs, side: Side) -> list[PyTree]:
        batch = _batch_shape(xs)
        return [
            one(layer, p, layer.init_carry(p, batch), xs, layers.of_part(side, i))[1]
            for i, (one, layer, p) in enumerate(
                zip(runs, (ahead, back), params, strict=True)
            )
        ]

    return (ahead, back), run


def init_pair(pair: tuple[Layer, Layer], key):
    keys = jax.random.split(key)
    return tuple(layer.init(k) for layer, k in zip(pair, keys, strict=True))


def over_pair(pair: tuple[Layer, Layer], f) -> list[Layer]:
    return [layer.over(f) if layer.over else layer for layer in pair]


def _batch_shape(xs: PyTree) -> tuple[int, ...]:
    first = jax.tree.leaves(xs)[0]
    symbols = jnp.issubdtype(first.dtype, jnp.integer)
    return first.shape[1:] if symbols else first.shape[1:-1]


def _joined(ys, zs):
    return jnp.concatenate([ys, zs], -1)
