"""Streams of batches that are drawn, not read."""

from collections.abc import Callable

import jax
import numpy as np
from jax import Array

from bptt_jax.types import Batch, Stream

_HELD_OUT_SEED = 20_151_120
_HELD_OUT_BATCHES = 10


def drawn(draw: Callable[[Array], Batch]) -> tuple[Stream, Stream]:
    """`draw(key) -> Batch` as a training stream without end and a held-out one.

    A training batch is drawn from the key it is given. A held-out batch is drawn from
    its position under a key of its own, so that every evaluation sees the same ones.
    """

    def train_batch(item, key):
        del item
        return draw(key)

    def held_out_batch(item, key):
        del key
        return draw(jax.random.fold_in(jax.random.key(_HELD_OUT_SEED), item))

    train = Stream(_positions, train_batch, None)
    held_out = Stream(_held_out_positions, held_out_batch, _HELD_OUT_BATCHES)
    return train, held_out


def _positions(first: int, n: int) -> np.ndarray:
    return np.arange(first, first + n) % 2**31


def _held_out_positions(first: int, n: int) -> np.ndarray:
    return np.arange(first, first + n) % _HELD_OUT_BATCHES
