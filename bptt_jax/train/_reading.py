"""The items of dispatches, of which the next are read while the device computes."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from bptt_jax.types import PyTree, StreamRead


def dispatches(position: int, until: int, most: int) -> Iterator[tuple[int, int]]:
    """`(position, updates)` of each."""
    while position < until:
        n = min(most, until - position)
        yield position, n
        position += n


class Reading:
    """Reads the items of one dispatch after the other, one ahead, in a thread.

    A stream is read by this thread alone, in order. Whoever stops in between has had one
    dispatch read that was not needed.

    Args:
      read: of a stream.
      wanted: as of `dispatches`.
    """

    def __init__(self, read: StreamRead, wanted: Iterator[tuple[int, int]]):
        self.read, self.wanted = read, wanted
        self.waited = 0.0
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="bptt_jax reads")
        self.ahead = self._begun()

    def next(self) -> tuple[int, PyTree]:
        """The updates of the next dispatch and their items; raises what `read` raises."""
        began = time.perf_counter()
        assert self.ahead is not None
        n, reads = self.ahead
        items = reads.result()
        self.waited += time.perf_counter() - began
        self.ahead = self._begun()
        return n, items

    def _begun(self) -> tuple[int, Future] | None:
        at = next(self.wanted, None)
        return None if at is None else (at[1], self.thread.submit(self.read, *at))

    def close(self) -> None:
        """Waits for what is being read."""
        self.thread.shutdown(wait=True, cancel_futures=True)
