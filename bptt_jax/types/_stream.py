"""Batches in a fixed order."""

from typing import NamedTuple, Protocol

from jax import Array

from bptt_jax._factory import record
from bptt_jax.types._batch import Batch
from bptt_jax.types._pytree import PyTree


class StreamRead(Protocol):
    """What batches need, on the host.

    Args:
      first: position of the first batch.
      n: how many batches.

    Returns:
      items of the batches first, first + 1, … first + n - 1, NumPy leaves `[n, ...]`.
    """

    def __call__(self, first: int, n: int, /) -> PyTree: ...


class StreamBatch(Protocol):
    """A batch, pure and on the device.

    Args:
      item: one of those that `read` gave, leaves `[...]`.
      key: the batch's own.

    Returns:
      A `Batch`.
    """

    def __call__(self, item: PyTree, key: Array, /) -> Batch: ...


@record
class Stream(NamedTuple):
    """Batches in a fixed order, so that a position is all there is to save.

    read: a `StreamRead`.
    batch: a `StreamBatch`.
    length: batches before the stream begins anew (one epoch); None if it never does.
    """

    read: StreamRead
    batch: StreamBatch
    length: int | None
