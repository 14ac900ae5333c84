"""Windows of series: which there are, without one of them being cut."""

from typing import NamedTuple

import numpy as np

from bptt_jax.tasks._sequences import Sequences


class Cuts(NamedTuple):
    """The windows of a part, numbered series by series, in the order of time.

    firsts: int64 `[S]`, the row at which each series' first window begins.
    counts: int64 `[S]`, windows of each series.
    stride: steps from one window to the next.
    """

    firsts: np.ndarray
    counts: np.ndarray
    stride: int

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def at(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows `[n]` at which windows of these numbers `[n]` begin, and their series."""
        ends = np.cumsum(self.counts)
        series = np.searchsorted(ends, numbers, side="right")
        within = numbers - (ends - self.counts)[series]
        return self.firsts[series] + within * self.stride, series


def cuts_of(
    series: Sequences, held: np.ndarray, T: int, horizon: int, stride: int
) -> tuple[Cuts, Cuts]:
    """The windows of the training part and of the held-out one.

    A window belongs to the part that has all of its targets. Those of training are counted
    back from the one that ends where the part does, those held out from the first.

    Args:
      held: int64 `[S]`, steps of each series that are held out.

    Raises:
      ValueError: a part of a series has no window.
    """
    known = series.lengths - held
    for i, (n, seen) in enumerate(zip(series.lengths, known, strict=True)):
        if seen < T + horizon:
            raise ValueError(
                f"series[{i}]: the training part has {seen} of its {n} steps; expected at "
                f"least T + horizon = {T} + {horizon} = {T + horizon}"
            )
        if n - seen < horizon:
            raise ValueError(
                f"series[{i}]: {n - seen} of its {n} steps are held out; expected at least "
                f"horizon = {horizon}"
            )
    spare = known - T - horizon
    train = Cuts(series.begins + spare % stride, spare // stride + 1, stride)
    counts = (held - horizon) // stride + 1
    return train, Cuts(series.begins + known - T, counts, stride)
