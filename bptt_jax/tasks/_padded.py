"""Batches of sequences that are all in memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import objectives
from bptt_jax._factory import factory
from bptt_jax.tasks._contexts import rows_of
from bptt_jax.tasks._epochs import buckets_of, reader
from bptt_jax.tasks._sequences import Sequences
from bptt_jax.types import Batch, Side, Stream, StreamBatch, Weighted


class Data(NamedTuple):
    """What batches are made of.

    inputs: float32 features `[M, F]`, or int32 symbols `[M]`, of all steps; or a dict of
        these.
    targets: of all steps, or `[N, ...]` of sequences; None: the next inputs.
    weights: of all steps, or `[N]` of sequences; None: all count alike.
    context: `[N, ...]` of sequences, what is constant in time, or a dict of these; None:
        there is none.
    """

    inputs: Sequences
    targets: Sequences | np.ndarray | None
    weights: Sequences | np.ndarray | None
    context: Any = None

    @property
    def lengths(self) -> np.ndarray:
        """Steps that have a target, `[N]`."""
        return self.inputs.lengths - (self.targets is None)


class Padded(NamedTuple):
    """What a batch is made of; time is the first axis.

    inputs: `[T, B, F]`, or symbols `[T, B]`, or a dict of these; where targets are the next
        inputs T + 1 steps.
    lengths: int32 `[B]`, zero where a row is empty.
    targets, weights: `[T, B, ...]` or `[B, ...]`; targets may be a tree of such leaves.
    context: `[B, ...]`, or a dict of these.
    """

    inputs: Any
    lengths: Any
    targets: Any = None
    weights: Any = None
    context: Any = None


def stream(
    data: Data, members: np.ndarray, size: int, seed: tuple[int, ...], epochs: bool
) -> Stream:
    """Some of the sequences, each of them once in an epoch.

    Args:
      members: numbers of the sequences, `[n]`.
      size: sequences of a batch.
      seed: of the order.
      epochs: whether each epoch has an order of its own; False: all have the same.
    """
    lengths = data.lengths[members]
    buckets = buckets_of(lengths, size)
    T = buckets[-1]

    def made(rows: np.ndarray) -> Padded:
        return _padded(data, np.where(rows < 0, -1, members[rows]), T)

    read = reader(lengths, size, buckets, seed, epochs, made)
    batch = batch_of(
        following=data.targets is None,
        single=isinstance(data.targets, np.ndarray),
        masked=bool((lengths < T).any()),
        full=len(members) % size == 0,
    )
    length = -(-len(members) // size)
    return Stream(read, batch, length, buckets if len(buckets) > 1 else ())


def _padded(data: Data, rows: np.ndarray, T: int) -> Padded:
    steps = T + (data.targets is None)

    def some(a):
        if isinstance(a, Sequences):
            return a.padded(rows, steps)
        return None if a is None else np.where(rows < 0, 0, a[rows].T).T.astype(a.dtype)

    lengths = np.where(rows < 0, 0, data.lengths[rows]).astype(np.int32)
    along = some(data.inputs), lengths, some(data.targets), some(data.weights)
    return Padded(*along, rows_of(data.context, rows))


@factory
def batch_of(*, following: bool, single: bool, masked: bool, full: bool) -> StreamBatch:
    """Of `Padded`. Where nothing is padded there is no mask.

    Args:
      following: whether targets are the next inputs.
      single: whether a sequence has one target, at its last step.
      masked: whether sequences have unequal lengths.
      full: whether no row of any batch is empty.
    """

    def batch(item: Padded, key) -> Batch:
        del key
        inputs, targets = item.inputs, item.targets
        if following:
            inputs, targets = inputs[:-1], inputs[1:]
        T = jax.tree.leaves(inputs)[0].shape[0]
        steps = jnp.arange(T, dtype=jnp.int32)[:, None]
        real = steps < item.lengths[None]
        counts = objectives.at_last_step(real) if single else real.astype(jnp.float32)
        if single:
            over = lambda a: jnp.broadcast_to(a[None], (T, *a.shape))
            targets = jax.tree.map(over, targets)
        if item.weights is not None:
            counts = counts * _over_steps(item.weights, following)
        alike = not single and item.weights is None and (masked or full)
        mask = real if masked else None
        return Batch(
            inputs,
            Side(mask=mask, targets=targets if alike else Weighted(targets, counts)),
            () if item.context is None else item.context,
        )

    return batch


def _over_steps(weights, following: bool):
    """`[B]` or of each step, of the one that is predicted where that is the next."""
    if weights.ndim == 1:
        return weights[None]
    return weights[1:] if following else weights
