"""Hooks of `layers.recurrent(cell, on_d_carry=…)`: they edit the gradient on its way back.

Each is `(d_carry, aux_t) -> d_carry`, given what comes from later steps; the cotangent of
the step's own output is added after it.
"""

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.types import OnDCarry, PyTree


@factory
def clip_d_carry(max_norm: float) -> OnDCarry:
    """Clips the cotangent of each example's state to a norm, at every step.

    The norm is that over all units and leaves of the carry, of complex ones too, computed
    in at least float32. So no example's gradient
    can explode on its way, however long that is; a clipped gradient is no gradient of
    any function.

    >>> from bptt_jax import cells, layers
    >>> layer = layers.recurrent(cells.elman(3, 8), on_d_carry=layers.clip_d_carry(1.0))
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a positive number, got {max_norm!r}")

    def hook(d_carry, aux):
        del aux
        leaves = [a for a in jax.tree.leaves(d_carry) if trees.is_floating(a)]
        norm = trees.norm(leaves, -1)[..., None]
        return trees.scaled(d_carry, max_norm / jnp.maximum(norm, max_norm))

    return hook


@factory
def scale_d_carry(factor: float) -> OnDCarry:
    """Multiplies the cotangent of the state by a number at every step.

    Below 1 it discounts the past, lag by lag: λ of a λ-return. For another factor at
    each step see `unrolls.times`.

    >>> from bptt_jax import cells, layers
    >>> layer = layers.recurrent(cells.gru(3, 8), on_d_carry=layers.scale_d_carry(0.9))
    """

    def hook(d_carry, aux):
        del aux
        return trees.scaled(d_carry, factor)

    return hook


@factory
def in_turn(first: OnDCarry | None, second: OnDCarry) -> OnDCarry:
    """The hook that is `second` after `first`; `side.aux` is the pair of theirs.

    None in the place of the first is no hook, and its half of the pair is not read.

    >>> from bptt_jax import cells, layers
    >>> hook = layers.in_turn(layers.h_detach, layers.clip_d_carry(1.0))
    >>> layer = layers.recurrent(cells.lstm(3, 8), on_d_carry=hook)
    """

    def hook(d_carry, aux):
        of_first, of_second = (None, None) if aux is None else aux
        d_carry = d_carry if first is None else first(d_carry, of_first)
        return second(d_carry, of_second)

    return hook


def h_detach(d_carry: PyTree, aux: Array | None) -> PyTree:
    """Blocks the gradient through h of an LSTM, and leaves that through c, where told.

    Args:
      d_carry: an `LSTMCarry`.
      aux: `side.aux`, bool `[T]` or `[T, B]`: True where nothing passes from step t + 1
        to h_t. Drawn anew for each batch, `jax.random.bernoulli(key, p, (T,))`; None:
        nowhere.

    Arpit, Kanuparthi, Kerg, Ke, Mitliagkas, Bengio (2018), "h-detach: modifying the LSTM
    gradient towards better optimization".

    >>> from bptt_jax import cells, layers
    >>> layer = layers.recurrent(cells.lstm(3, 8), on_d_carry=layers.h_detach)
    """
    if not (hasattr(d_carry, "h") and hasattr(d_carry, "c")):
        raise TypeError(
            f"h_detach: expected the carry of an LSTM, got {type(d_carry).__name__}"
        )
    if aux is None:
        return d_carry
    return d_carry._replace(h=trees.only(~aux, d_carry.h))
