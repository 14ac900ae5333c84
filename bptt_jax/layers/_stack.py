"""Layers on top of each other, stretch by stretch."""

import weakref
from collections.abc import Callable, Iterable

import jax

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.layers._lift import lift
from bptt_jax.layers._outputs import outputs
from bptt_jax.types import Cell, Layer, PyTree, Side

_PARTS: weakref.WeakKeyDictionary[Callable, tuple] = weakref.WeakKeyDictionary()
"""By `fwd`: the names, the layers, and the other functions of the stack."""

Names = tuple[str, ...] | None


def _known(layer: Layer) -> tuple[Names, tuple[Layer, ...]] | None:
    """The names and layers of a stack; None: it is another layer.

    A stack that was given another function by `_replace` is no stack any more.
    """
    names, layers, *others = _PARTS.get(layer.fwd, (None, None))
    same = others == [layer.init, layer.init_carry, layer.bwd, layer.refuse]
    return (names, layers) if layers is not None and same else None


def parts_of(layer: Layer) -> tuple[Layer, ...]:
    """The layers of a stack; of any other layer that one alone."""
    known = _known(layer)
    return (layer,) if known is None else known[1]


def keys_of(layer: Layer) -> tuple[str | int, ...]:
    """Where the parameters of each of `parts_of` are in those of a stack; () of another."""
    known = _known(layer)
    if known is None:
        return ()
    return known[0] or tuple(range(len(known[1])))


def with_last(layer: Layer, last: Layer) -> Layer:
    """The stack with another last layer."""
    known = _known(layer)
    if known is None:
        return last
    names, layers = known
    return _made(names, (*layers[:-1], last))


def _made(names: Names, layers: tuple[Layer, ...]) -> Layer:
    if names is None:
        return stack(*layers)
    return stack(**dict(zip(names, layers, strict=True)))


def of_part(side: Side, index: int) -> Side:
    """`side` for the part of a model at `index`: its own keys, all else the same."""
    if side.keys is None:
        return side
    return side._replace(
        keys=jax.vmap(lambda key: jax.random.fold_in(key, index))(side.keys)
    )


@factory
def stack(*layers: Layer | Cell, **named: Layer | Cell) -> Layer:
    """The layers in a row: over each stretch the second runs on the first's outputs.

    Every layer keeps its products over all steps of the stretch, and nothing crosses
    stretches but carries. Params and carry are tuples, one entry a layer, or dicts by the
    names of the layers, which are run in the order of the call: JAX sorts the keys of a
    dict, so theirs says nothing. Each layer draws from keys of its own (its index folded
    in). A cell stands for the layer that runs it, and one list or tuple for what is in it.

    Args:
      layers: from the first to the last.
      named: the same, each by a name, in the place of `layers`.

    Raises:
      ValueError: there are none, or both.
      TypeError: one is neither a cell nor a layer.

    >>> import jax
    >>> from bptt_jax import cells, layers
    >>> net = layers.stack(cells.lstm(3, 8), layers.dense(8, 2))
    >>> net = layers.stack(memory=cells.lstm(3, 8), readout=layers.dense(8, 2))
    >>> sorted(net.init(jax.random.key(0))["readout"])
    ['bias', 'kernel']
    """
    if layers and named:
        raise ValueError(
            f"stack: expected names for all layers or for none, got {len(layers)} without "
            f"and {', '.join(named)}"
        )
    names = tuple(named) or None
    parts = lifted(named) if named else _parts(layers)

    def over(f):
        return _made(names, tuple(p.over(f) if p.over else p for p in parts))

    recurs = any(part.over for part in parts)
    return _stacked(names, parts)._replace(over=over if recurs else None)


def lifted(named: dict[str, Layer | Cell]) -> tuple[Layer, ...]:
    """Each as a layer, in the order of the names."""
    return tuple(lift(layer, name) for name, layer in named.items())


def _parts(layers: tuple) -> tuple[Layer, ...]:
    """Each as a layer; one list or tuple of them (records are tuples) is opened."""
    if len(layers) == 1 and not isinstance(layers[0], Cell | Layer):
        layers = layers[0] if isinstance(layers[0], tuple) else layers
    if not layers:
        raise ValueError("stack: expected at least one layer, got none")
    return tuple(lift(layer, f"layers[{i}]") for i, layer in enumerate(layers))


def of_each(names: Names, tree: PyTree) -> tuple:
    """What each part has of params, a carry, or a cotangent, in the order of the call."""
    return tuple(tree) if names is None else tuple(tree[name] for name in names)


def joined(names: Names, each: Iterable) -> PyTree:
    """The inverse of `of_each`."""
    return tuple(each) if names is None else dict(zip(names, each, strict=True))


def _stacked(names: Names, layers: tuple[Layer, ...]) -> Layer:
    """`stack` of layers, without `over`."""

    def init(key):
        keys = jax.random.split(key, len(layers))
        return joined(
            names, [layer.init(k) for layer, k in zip(layers, keys, strict=True)]
        )

    def init_carry(params, batch_shape):
        each = zip(layers, of_each(names, params), strict=True)
        return joined(names, [layer.init_carry(p, batch_shape) for layer, p in each])

    def fwd(params, carry, xs, side):
        params, carry = of_each(names, params), of_each(names, carry)
        carries, residuals, between = [], [], [xs]
        for i, layer in enumerate(layers):
            after, ys, kept = layer.fwd(
                params[i], carry[i], between[-1], of_part(side, i)
            )
            carries.append(after)
            residuals.append(kept)
            between.append(ys)
        return joined(names, carries), between[-1], (residuals, between[1:-1])

    def bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys):
        params, carry, d_carry = (of_each(names, t) for t in (params, carry, d_carry))
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
        return joined(names, d_params), joined(names, d_carries), d_ys, d_targets

    def refuse(params, carry, xs, side):
        params, carry = of_each(names, params), of_each(names, carry)
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
    _PARTS[fwd] = names, layers, init, init_carry, bwd, refuses
    return Layer(init, init_carry, fwd, bwd, None, refuses, only)
