"""Streams of examples that are all in memory."""

from typing import NamedTuple

import jax
import numpy as np

from bptt_jax.types import Stream, StreamBatch


def shuffled(
    data: NamedTuple, count: int, size: int, seed: int, batch: StreamBatch
) -> Stream:
    """In an order of its own in each epoch; what does not fill a batch waits.

    Args:
      data: leaves `[count, ...]`.
      count: examples.
      size: examples of a batch, B; items have leaves `[B, ...]`.
      seed: of the orders.
      batch: as of `types.Stream`.
    """
    length = count // size

    def read(first: int, n: int):
        epochs, windows = np.divmod(np.arange(first, first + n), length)
        orders = {
            epoch: np.random.default_rng((seed, epoch)).permutation(count)
            for epoch in np.unique(epochs).tolist()
        }
        chosen = np.array(
            [
                orders[epoch][i * size : (i + 1) * size]
                for epoch, i in zip(epochs.tolist(), windows.tolist())
            ]
        )
        return jax.tree.map(lambda a: a[chosen], data)

    return Stream(read, batch, length)


def in_order(data: NamedTuple, count: int, size: int, batch: StreamBatch) -> Stream:
    """In the order of `data`, again and again; arguments as of `shuffled`."""
    length = count // size
    each = jax.tree.map(
        lambda a: a[: length * size].reshape(length, size, *a.shape[1:]), data
    )

    def read(first: int, n: int):
        chosen = np.arange(first, first + n) % length
        return jax.tree.map(lambda a: a[chosen], each)

    return Stream(read, batch, length)
