"""How fast a run is: `timings.jsonl`, beside `metrics.jsonl`, which knows of no clock."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from bptt_jax.train._metrics import MetricsFile
from bptt_jax.train._reading import Reading
from bptt_jax.types import PyTree, StreamBatch


class Clock:
    """A line for each dispatch: `step` after it, `time` (of day, Unix), `seconds` that its
    updates took, `updates_per_second`, `tokens_per_second`, and `data_wait`, the share of
    these seconds in which the loop waited for reading. Tokens are steps of time of all
    examples, padding included. Evaluations and checkpoints are in no line; what is compiled
    is in that of the first dispatch.

    Args:
      path: of the file.
      position: where the run goes on: lines of later steps are of updates that are made
        again.
      say: told which lines could not be read.
    """

    def __init__(self, path: pathlib.Path, position: int, say: Callable[[str], Any]):
        self.file, self.position, self.say = MetricsFile(path), position, say
        self.tokens = 0

    def starts(self, reading: Reading) -> None:
        """Before the first dispatch; a run in which nothing is done has no such file."""
        self.file.resume(self.position, self.say)
        self.reading, self.waited = reading, reading.waited
        self.began = time.perf_counter()

    def counts(self, batch: StreamBatch, items: PyTree) -> None:
        """The tokens of a batch, by the items of a dispatch."""
        if self.tokens:
            return
        made = jax.eval_shape(
            lambda items, key: batch(jax.tree.map(lambda a: a[0], items), key),
            items,
            jax.random.key(0),
        )
        T, B = jax.tree.leaves(made.inputs)[0].shape[:2]
        self.tokens = T * B

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """For what is no update."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self.began += time.perf_counter() - before

    def dispatched(self, position: int, n: int) -> dict[str, float]:
        """After n updates, at `position`: what the line has of rates."""
        now = time.perf_counter()
        seconds = max(now - self.began, 1e-9)
        waited = self.reading.waited - self.waited
        self.began, self.waited = now, self.reading.waited
        rates = dict(
            updates_per_second=n / seconds,
            tokens_per_second=n * self.tokens / seconds,
            data_wait=min(waited / seconds, 1.0),
        )
        line = dict(step=position, time=time.time(), seconds=seconds) | rates
        self.file.append([line])
        return rates
