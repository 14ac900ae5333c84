"""Two layers, one in each direction of time: what `bidirectional` and `ends` share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bptt_jax import layers, unrolls
from bptt_jax._factory import functions
from bptt_jax.types import Cell, Layer, PyTree, Side, Unroll, Whole, WholeApply


def directions(
    forward: Layer | Cell, backward: Layer | Cell | None, unroll: Unroll
) -> tuple[tuple[Layer, Layer], Callable]:
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


def of_pair(
    make: Callable[..., Whole],
    pair: tuple[Layer, Layer],
    unroll: Unroll,
    apply: WholeApply,
) -> Whole:
    """The `Whole` of two layers, `make(*pair, unroll=unroll)`, that runs by `apply`."""

    def init(key):
        keys = jax.random.split(key)
        return tuple(layer.init(k) for layer, k in zip(pair, keys, strict=True))

    def over(f):
        each = (layer.over(f) if layer.over else layer for layer in pair)
        return make(*each, unroll=unroll)

    recurs = any(layer.over for layer in pair)
    return Whole(init, apply, over if recurs else None)


def _batch_shape(xs: PyTree) -> tuple[int, ...]:
    first = jax.tree.leaves(xs)[0]
    symbols = jnp.issubdtype(first.dtype, jnp.integer)
    return first.shape[1:] if symbols else first.shape[1:-1]
