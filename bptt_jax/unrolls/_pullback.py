"""The two passes of `bptt` one by one, with an eye on the second."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax

from bptt_jax import _pytrees as trees
from bptt_jax import cells, layers
from bptt_jax.types import Cell, Layer, PyTree, Seen, Side, Watch
from bptt_jax.unrolls import _bptt
from bptt_jax.unrolls._door import arrays, check, lift, refuse, spread


class Pulled(NamedTuple):
    """What came back through time.

    d_params, d_carry, d_xs, d_targets: cotangents; None at leaves that are not floating.
    seen: for each recurrent layer, in order, what the watch showed, leaves `[T, ...]`.
    paths: of each, where its parameters are in those of the whole (`jax.tree_util`).
    d_context: cotangent of the context; `()` where there is none.
    """

    d_params: PyTree
    d_carry: PyTree
    d_xs: PyTree
    d_targets: PyTree
    seen: list
    paths: list
    d_context: PyTree = ()


def contract(seen: Seen) -> tuple[PyTree, PyTree]:
    """`(d_params, d_xs)`: what a layer that nobody watches does, for a watch to do."""
    return cells.contract(
        seen.cell, seen.params, seen.xs, seen.carries, seen.coeffs, seen.deltas
    )


def pullback(
    layer: Layer | Cell,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    side: Side = Side(),
    *,
    watch: Watch,
    chunk: int | None = None,
    length: int | None = None,
    context: PyTree = (),
) -> tuple[tuple[PyTree, PyTree], Callable]:
    """As `jax.vjp` of `bptt`, but what passes by on the way back can be seen.

    A `custom_vjp` cannot return what it computed on its way. Here the same two passes
    are two functions, and each recurrent layer shows a watch what it has in hand.

    Args:
      layer, params, carry, xs, side, chunk, length, context: as of `bptt`.
      watch: `(Seen) -> ((d_params, d_xs), shown)`, over a stretch of K steps;
        `contract(seen)` gives the first two, `shown` has leaves `[K, ...]`. A function
        that closes over no arrays.

    Returns:
      `(carry, ys)` and `back(d_carry, d_ys) -> Pulled`, which is not differentiable.

    Raises:
      ValueError: the layer has no recurrent part, or an argument does not fit.

    Cost: that of `bptt`'s gradient, and what the watch computes and shows.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, unrolls
    >>> cell = cells.gru(3, 4)
    >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((7, 2, 3))
    >>> (carry, ys), back = unrolls.pullback(
    ...     cell, params, cell.init_carry(params, (2,)), xs,
    ...     watch=lambda seen: (unrolls.contract(seen), seen.d_states))
    >>> back(jnp.zeros_like(carry), jnp.ones_like(ys)).seen[0].shape
    (7, 2, 4)
    """
    layers.refuse_sections("pullback", layer, "it sees one layer's time go by")
    chunk = _bptt.check_chunk(chunk)
    layer, at = lift(layer), arrays(params, carry, xs, side, length, context)
    check(layer, *at)
    refuse(layer, *at)
    at = (at[0], spread(layer, *at), *at[2:])
    watched = layers.over(layer, lambda part: layers.made(part._replace(watch=watch)))
    order = [part.path for part in layers.parts(layer)]
    out, residuals = _bptt.forward(watched, *at, chunk=chunk)

    def back(d_carry, d_ys):
        *flat, seen = _bptt.backward(watched, residuals, d_carry, d_ys, chunk=chunk)
        of = (*at[:3], at[3].targets)
        ds = [trees.fill(like, d) for like, d in zip(of, flat, strict=True)]
        seen = sorted(seen, key=lambda part: order.index(part.path))
        shown, paths = [part.shown for part in seen], [part.path for part in seen]
        if not jax.tree.leaves(context):
            return Pulled(*ds, shown, paths)
        d_context = functools.reduce(trees.add, layers.context_of(ds[0]))
        ds[0] = layers.without_context(ds[0])
        return Pulled(*ds, shown, paths, d_context)

    return out, back
