"""Inputs of several kinds, each through a layer of its own, joined into one."""

import functools
import weakref
from collections.abc import Callable

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory, functions
from bptt_jax.layers._outputs import outputs
from bptt_jax.layers._stack import lifted, of_part
from bptt_jax.types import Cell, Layer, PyTree

Join = Callable[[tuple], PyTree]


def concatenated(each: tuple[jax.Array, ...]) -> jax.Array:
    """Outputs side by side, `[K, ..., O], [K, ..., O'] -> [K, ..., O + O']`.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import layers
    >>> layers.concatenated((jnp.ones((5, 2)), jnp.zeros((5, 3)))).shape
    (5, 5)
    """
    return jnp.concatenate(each, -1)


def summed(each: tuple[jax.Array, ...]) -> jax.Array:
    """The sum of outputs of one shape.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import layers
    >>> layers.summed((jnp.ones((5, 2)), jnp.ones((5, 2)))).sum()
    Array(20., dtype=float32)
    """
    return functools.reduce(jnp.add, each)


_BRANCHES: weakref.WeakKeyDictionary[Callable, tuple] = weakref.WeakKeyDictionary()
"""By `fwd`: the names and the layers side by side."""


def branches_of(layer: Layer) -> dict[str, Layer]:
    """The layers that have inputs of their own; none of another layer."""
    names, layers = _BRANCHES.get(layer.fwd, ((), ()))
    return dict(zip(names, layers, strict=True))


@factory
def inputs(join: Join = concatenated, /, **named: Layer | Cell) -> Layer:
    """A dictionary of inputs: each goes through its own layer, and what comes out is joined.

    Params and carry are dicts by the names, each layer draws from keys of its own, and a
    layer that is a cell's has its products over all steps, as in `stack`.

    Args:
      join: what is made of the outputs of all, a tuple in the order of the call:
        `concatenated`, `summed`, or a function of one's own, each step by itself, that
        closes over no arrays.
      named: the layer of each, by the name of its inputs.

    Returns:
      A layer of inputs `{name: [K, ..., I]}`; each may have features or symbols of its own.

    Raises:
      ValueError: there are none; and where it is run, inputs by other names.
      TypeError: one is neither a cell nor a layer.

    Cost: that of the layers. Outputs are stored once where they are `concatenated`, else
    joined and by themselves.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, layers, unrolls
    >>> model = layers.stack(
    ...     layers.inputs(sound=cells.gru(20, 8), sign=layers.embedding(5, 4)),
    ...     cells.lstm(12, 16),
    ... )
    >>> xs = dict(sound=jnp.ones((7, 2, 20)), sign=jnp.zeros((7, 2), int))
    >>> params = model.init(jax.random.key(0))
    >>> unrolls.bptt(model, params, model.init_carry(params, (2,)), xs)[1].shape
    (7, 2, 16)
    """
    functions(join=join)
    if not named:
        raise ValueError(
            "inputs: expected a layer for each input by its name, got none"
        )
    names, layers = tuple(named), lifted(named)

    def over(f):
        each = (p.over(f) if p.over else p for p in layers)
        return inputs(join, **dict(zip(names, each, strict=True)))

    recurs = any(layer.over for layer in layers)
    return _side_by_side(join, names, layers)._replace(over=over if recurs else None)


def _side_by_side(join: Join, names: tuple[str, ...], layers: tuple) -> Layer:
    """`inputs`, without `over`."""
    each = tuple(enumerate(zip(names, layers, strict=True)))

    def init(key):
        keys = jax.random.split(key, len(layers))
        return {name: layer.init(keys[i]) for i, (name, layer) in each}

    def init_carry(params, batch_shape):
        return {n: layer.init_carry(params[n], batch_shape) for _, (n, layer) in each}

    def fwd(params, carry, xs, side):
        _refuse_other(names, xs)
        found = {
            name: layer.fwd(params[name], carry[name], xs[name], of_part(side, i))
            for i, (name, layer) in each
        }
        carries, ys, residuals = ({n: found[n][k] for n in names} for k in range(3))
        kept = None if join is concatenated else ys
        return carries, join(tuple(ys.values())), (residuals, kept)

    def bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys):
        residuals, kept = residuals
        at = {n: (params[n], carry[n], xs[n], of_part(side, i)) for i, (n, _) in each}
        if kept is None:
            shapes = [outputs(layer, *at[name]) for _, (name, layer) in each]
            kept = dict(zip(names, _cut(ys, shapes), strict=True))
        _, back = trees.pullback(join, tuple(kept[name] for name in names))
        (d_each,) = back(d_ys)
        found, d_targets = {}, None
        for i, (name, layer) in each:
            *found[name], d = layer.bwd(
                *at[name], kept[name], residuals[name], d_carry[name], d_each[i]
            )
            d_targets = d if d_targets is None else trees.sum_of(d_targets, d)
        return *({n: found[n][k] for n in names} for k in range(3)), d_targets

    def refuse(params, carry, xs, side):
        _refuse_other(names, xs)
        for i, (name, layer) in each:
            if layer.refuse is not None:
                layer.refuse(params[name], carry[name], xs[name], of_part(side, i))

    refuses = refuse if any(layer.refuse for layer in layers) else None
    _BRANCHES[fwd] = names, layers
    return Layer(init, init_carry, fwd, bwd, None, refuses)


def _cut(ys: jax.Array, shapes: list) -> list[jax.Array]:
    """What was `concatenated`."""
    ends = [0]
    for shape in shapes:
        ends.append(ends[-1] + shape.shape[-1])
    return [
        ys[..., begin:end].astype(shape.dtype)
        for begin, end, shape in zip(ends[:-1], ends[1:], shapes, strict=True)
    ]


def _refuse_other(names: tuple[str, ...], xs: PyTree) -> None:
    if not isinstance(xs, dict) or set(xs) != set(names):
        got = ", ".join(map(str, xs)) if isinstance(xs, dict) else type(xs).__name__
        raise ValueError(
            f"inputs: expected a dictionary of {', '.join(names)}, got {got}"
        )
