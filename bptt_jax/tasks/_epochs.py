"""In which order sequences come, and which of them are in a batch together.

An epoch has every sequence once, in an order of its own. Sequences of like lengths are
batched together: lengths are cut into a few buckets, each bucket is filled into batches,
and what fills none goes to the bucket of the next longer ones, so one batch of an epoch at
most is not full. Batches of all buckets come mixed.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np

from bptt_jax.types import PyTree, StreamRead

MOST_BUCKETS = 4
WORTH = 0.1
"""Share of the steps that one bucket more must save, as it is compiled, too."""
_CANDIDATES = 256
_HELD_OUT_BATCH = 128
"""Held-out batches have at most so many rows, or as many as those of training."""


def buckets_of(lengths: np.ndarray, size: int) -> tuple[int, ...]:
    """Numbers of steps, ascending, the last one that of the longest sequence.

    Of so many buckets those with the least padding; of each but the last there is a batch
    at least. The least padding of k + 1 buckets comes from that of k (Bellman's recursion
    over the candidates for an edge).

    Args:
      lengths: `[N]`.
      size: sequences of a batch.
    """
    edges = np.unique(lengths)
    if len(edges) > _CANDIDATES:
        ranks = np.linspace(0, len(edges) - 1, _CANDIDATES).round().astype(int)
        edges = edges[ranks]
    below = np.searchsorted(np.sort(lengths), np.append(0, edges), side="right")
    # cost[i, j]: steps of the sequences longer than edge i - 1 in a bucket up to edge j
    count = below[None, 1:] - below[:-1, None]
    enough = (count >= size) | (np.arange(len(edges)) == len(edges) - 1)
    cost = np.where((count > 0) & enough, count * edges.astype(float), np.inf)
    best, chosen = cost[0], [[int(edge)] for edge in edges]
    for _ in range(1, MOST_BUCKETS):
        several = (
            best[:-1, None] + cost[1:]
        )  # up to edge i before, from there to edge j
        several = np.vstack([np.full(len(edges), np.inf), several])
        last = several.argmin(0)
        more = several[last, np.arange(len(edges))]
        if not best[-1] - more[-1] >= WORTH * best[-1]:
            break
        chosen = [
            [*chosen[i - 1], int(edge)] for i, edge in zip(last, edges, strict=True)
        ]
        best = more
    return tuple(chosen[-1])


def batches(
    lengths: np.ndarray, size: int, buckets: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """An epoch: int64 `[batches, size]`, numbers of sequences; -1 where a row is empty."""
    order = rng.permutation(len(lengths))
    bucket = np.searchsorted(buckets, lengths)[order]
    found, rest = [], order[:0]
    for k in range(len(buckets)):
        here = np.concatenate([rest, order[bucket == k]])
        full = len(here) // size * size
        found.append(here[:full])
        rest = here[full:]
    empty = np.full(-len(rest) % size, -1)
    rows = np.concatenate([*found, rest, empty]).reshape(-1, size)
    return rows[rng.permutation(len(rows))]


def reader(
    lengths: np.ndarray,
    size: int,
    buckets: tuple[int, ...],
    seed: tuple[int, ...],
    epochs: bool,
    made: Callable[[np.ndarray], PyTree],
) -> StreamRead:
    """Reads batches of sequences, each of which is there once in an epoch.

    Args:
      lengths: `[n]`.
      size: sequences of a batch.
      buckets: see `buckets_of`.
      seed: of the order.
      epochs: whether each epoch has an order of its own; False: all have the same.
      made: numbers of sequences `[size]`, -1 where a row is empty -> what a batch is made of.
    """
    length = -(-len(lengths) // size)

    @functools.lru_cache(2)
    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng((*seed, epoch))
        return batches(lengths, size, buckets, rng)

    def read(first: int, n: int) -> PyTree:
        each = [divmod(i, length) for i in range(int(first), int(first) + int(n))]
        found = [made(order(epoch if epochs else 0)[at]) for epoch, at in each]
        return jax.tree.map(lambda *a: np.stack(a), *found)

    return read


def held_out_size(batch: int, train: int, held_out: int, what: str) -> int:
    """Rows of a held-out batch, so that all are about as full.

    Args:
      batch: rows of a training batch.
      train, held_out: sequences, or windows, of the parts.
      what: what they are called.

    Raises:
      ValueError: a training batch is not filled by the training part.
    """
    if batch > train:
        raise ValueError(
            f"batch must be at most {train}, the {what} of the training part, got {batch}"
        )
    return -(-held_out // -(-held_out // max(batch, _HELD_OUT_BATCH)))
