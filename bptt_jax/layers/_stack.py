"""Layers on top of each other, stretch by stretch."""

import weakref
from collections.abc import Callable

import jax

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.layers._lift import lift
from bptt_jax.layers._outputs import outputs
from bptt_jax.types import Cell, Layer, Side

_PARTS: weakref.WeakKeyDictionary[Callable, tuple] = weakref.WeakKeyDictionary()
"""By `fwd`: the layers, and the other functions of the stack."""


def parts_of(layer: Layer) -> tuple[Layer, ...]:
    """The layers of a stack; of any other layer that one alone.

    A stack that was given another function by `_replace` is no stack any more.
    """
    layers, *others = _PARTS.get(layer.fwd, (None,))
    same = others == [layer.init, layer.init_carry, layer.bwd, layer.refuse]
    return layers if layers is not None and same else (layer,)


def of_part(side: Side, index: int) -> Side:
    """`side` for the part of a model at `index`: its own keys, all else the same."""
    if side.keys is None:
        return side
    return side._replace(
        keys=jax.vmap(lambda key: jax.random.fold_in(key, index))(side.keys)
    )


@factory
def stack(*layers: Layer | Cell) -> Layer:
    """The layers in a row: over each stretch the second runs on the first's outputs.

    Every layer keeps its products over all steps of the stretch, and nothing crosses
    stretches but carries. Params and carry are tuples, one entry a layer. Each layer
    draws from keys of its own (its index folded in). A cell stands for the layer that runs
    it, and one list or tuple for what is in it.

    >>> from bptt_jax import cells, layers
    >>> net = layers.stack(cells.lstm(3, 8), layers.dense(8, 2))
    """
    parts = _parts(layers)

    def over(f):
        return stack(*(part.over(f) if part.over else part for part in parts))

    recurs = any(part.over for part in parts)
    return _stacked(parts)._replace(over=over if recurs else None)


def _parts(layers: tuple) -> tuple[Layer, ...]:
    """Each as a layer; one list or tuple of them is opened."""
    layers = opened(layers)
    if not layers:
        raise ValueError("stack: expected at least one layer, got none")
    return tuple(lift(layer, f"layers[{i}]") for i, layer in enumerate(layers))


def opened(parts: tuple) -> tuple:
    """What is in one list or tuple; records, which are tuples, as they are."""
    if len(parts) == 1 and isinstance(parts[0], tuple):
        return parts if hasattr(parts[0], "_fields") else parts[0]
    return parts


def _stacked(layers: tuple[Layer, ...]) -> Layer:
    """`stack` of layers, without `over`."""

    def init(key):
        keys = jax.random.split(key, len(layers))
        return tuple(layer.init(k) for layer, k in zip(layers, keys, strict=True))

    def init_carry(params, batch_shape):
        return tuple(
            layer.init_carry(p, batch_shape)
            for layer, p in zip(layers, params, strict=True)
        )

    def fwd(params, carry, xs, side):
        carries, residuals, between = [], [], [xs]
        for i, layer in enumerate(layers):
            after, ys, kept = layer.fwd(
                params[i], carry[i], between[-1], of_part(side, i)
            )
            carries.append(after)
            residuals.append(kept)
            between.append(ys)
        return tuple(carries), between[-1], (residuals, between[1:-1])

    def bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys):
        residuals, between = residuals
        between, d_params, d_carries, d_targets = [xs, *between, ys], [], [], None
        for i in reversed(range(len(layers))):
            d_p, d_c, d_ys, d_t = layers[i].bwd(
                params[i], carry[i], between[i], of_part(side, i),
                between[i + 1], residuals[i], d_carry[i], d_ys,
            )  # fmt: skip
            d_params.insert(0, d_p)
            d_carries.insert(0, d_c)
            d_targets = d_t if d_targets is None else trees.sum_of(d_targets, d_t)
        return tuple(d_params), tuple(d_carries), d_ys, d_targets

    def refuse(params, carry, xs, side):
        for i, layer in enumerate(layers):
            at = params[i], carry[i], xs, of_part(side, i)
            if layer.refuse is not None:
                layer.refuse(*at)
            if all(later.refuse is None for later in layers[i + 1 :]):
                return
            xs = outputs(layer, *at)

    refusing = any(part.refuse for part in layers)
    only = all(layer.only_recurrent for layer in layers)
    refuses = refuse if refusing else None
    _PARTS[fwd] = layers, init, init_carry, bwd, refuses
    return Layer(init, init_carry, fwd, bwd, None, refuses, only)
