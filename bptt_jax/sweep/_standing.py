"""How the configurations of a sweep stand: of each a number, whatever has been written."""

import bisect
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from bptt_jax._score import Score
from bptt_jax.sweep import _results
from bptt_jax.sweep._order import Order
from bptt_jax.sweep._results import Best


class Standing:
    """Scores of the configurations that have ended a rung, and the best of the last.

    Args:
      order: of the sweep.
    """

    def __init__(self, order: Order):
        self.order, self.spec = order, order.spec
        self.scores: list[dict[int, float]] = [{} for _ in self.spec.rungs]
        self._best: list[tuple[float, int]] = []

    def add(self, row: dict[str, Any]) -> float:
        """What a row is worth, the less the better (NaN: nothing); noted if it is a last."""
        worth = worth_of(self.spec.score, row)
        if row["last"]:
            self._note(row["rung"], row["config"], worth)
        return worth

    def _note(self, rung: int, config: int, worth: float) -> None:
        before = self.scores[rung].get(config)
        self.scores[rung][config] = worth
        if rung < len(self.spec.rungs) - 1:
            return
        if before is not None and (before, config) in self._best:
            self._best.remove((before, config))  # made again
        if not np.isnan(worth):
            bisect.insort(self._best, (worth, config))
            del self._best[self.spec.keep :]

    @property
    def best(self) -> list[int]:
        """Whose parameters are kept, the best first, of those that have ended."""
        return [config for _, config in self._best]

    @property
    def bound(self) -> float:
        """What must be worth less than this to be among the best."""
        full = len(self._best) == self.spec.keep
        return self._best[-1][0] if full else np.inf

    def score(self, worth: float) -> float:
        return -worth if self.spec.score.maximise else worth

    def found(
        self, columns: dict[str, list], at: Callable[[int], pathlib.Path]
    ) -> list[Best]:
        """The best as results have them; `at(config)`: the file of its parameters."""
        return [
            Best(
                i,
                self.score(worth),
                {k: v[i] for k, v in columns.items()},
                at(i),
                self.order.choice_of[i],
            )
            for worth, i in self._best
        ]


def worth_of(score: Score, row: dict[str, Any]) -> float:
    """The less the better; NaN: it has no score."""
    value = _results.score(row, score.name)
    return value if np.isnan(value) else score.worth(value)
