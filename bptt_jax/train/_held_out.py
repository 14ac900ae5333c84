"""What the held-out part says while a run goes on: figures, the best, and patience."""

import numpy as np

from bptt_jax._score import Score
from bptt_jax.train._checkpoint import Best, copied
from bptt_jax.train._evaluate import LOSS, evaluation, figures, means
from bptt_jax.train._step import TrainState
from bptt_jax.types import Layer, PyTree, Sections, Task


class HeldOut:
    """Evaluations of a run, and the best parameters of all of them.

    Args:
      batches: of an evaluation.
      score: what "best" means.
      best: of a run that goes on.
    """

    def __init__(
        self,
        task: Task,
        model: Layer | Sections,
        batches: int,
        score: Score,
        best: Best | None,
    ):
        self.task, self.batches, self.score, self.best = task, batches, score, best
        self.add = evaluation(task, model)

    def figures(self, params: PyTree, at_most: int) -> dict[str, float]:
        """`loss` and the metrics, over the first batches."""
        stream = self.task.held_out
        return figures(
            self.task, means(self.add, stream, params, at_most, self.batches)
        )

    def compare(
        self, position: int, state: TrainState
    ) -> tuple[dict[str, float], bool]:
        """The figures of an evaluation, and whether it is the best; it is kept if so."""
        found = self.figures(state.params, self.batches)
        better = self.best is None or self._worth(found) < self._worth_of_best()
        if better and np.isfinite(found[LOSS]):
            score = self.told(found)
            self.best = Best(copied(state.params), position, found[LOSS], score=score)
        return found, better

    def told(self, figures: dict[str, float]) -> float | None:
        """The score of some figures, as `Best` has it."""
        value = None if self.score.name is None else figures[self.score.name]
        return value if value is not None and np.isfinite(value) else None

    def now(self) -> tuple[float, int] | None:
        """The best score so far and its position."""
        best = self.best
        if best is None:
            return None
        found = best.held_out if self.score.name is None else best.score
        return None if found is None else (found, best.position)

    def _worth(self, figures: dict[str, float]) -> float:
        return self.score.worth(figures[self.score.name or LOSS])

    def _worth_of_best(self) -> float:
        best = self.best
        assert best is not None
        return self.score.worth(
            best.held_out if self.score.name is None else best.score
        )

    def waited(self) -> None:
        """One more evaluation was not better."""
        assert self.best is not None
        self.best = self.best._replace(since=self.best.since + 1)

    def out_of(self, patience: int | None) -> bool:
        if patience is None or self.best is None:
            return False
        return self.best.since >= patience
