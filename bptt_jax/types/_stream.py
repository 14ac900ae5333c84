"""Batches in a fixed order."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

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


class StreamSave(Protocol):
    """What has to be kept so that reading goes on before a batch.

    Args:
      position: of the batch; at once where a read began or ended there lately.

    Returns:
      Something that JSON holds.
    """

    def __call__(self, position: int, /) -> dict[str, Any]: ...


class StreamRestore(Protocol):
    """Has the next read, which is at `position`, go on as it would have.

    Args:
      position: of the batch that is read next.
      saved: what `save` gave for it; None: nothing was kept.
      say: is told where that takes a while.
    """

    def __call__(
        self, position: int, saved: dict[str, Any] | None, say: Callable[[str], Any], /
    ) -> None: ...


class StreamPlace(NamedTuple):
    """Of a stream that goes forward: where it is, as a checkpoint keeps it.

    save: a `StreamSave`.
    restore: a `StreamRestore`.
    """

    save: StreamSave
    restore: StreamRestore


@record
class Stream(NamedTuple):
    """Batches in a fixed order. A position is all there is to save, but for `place`.

    read: a `StreamRead`.
    batch: a `StreamBatch`.
    length: batches before the stream begins anew (one epoch); None if it never does, or
        nobody knows.
    buckets: ascending steps, of which the last is all of a batch: where the mask says that
        nothing comes after one of them, training and evaluation run no more steps than
        that. All batches have one shape, so whoever does not look here is right, too.
    place: a `StreamPlace`, where batches come from a reader that goes forward alone: any
        position can be read then, too, but only the next one at once.
    """

    read: StreamRead
    batch: StreamBatch
    length: int | None
    buckets: tuple[int, ...] = ()
    place: StreamPlace | None = None
