"""What "best" means: the least held-out loss, or the least or greatest of another figure."""

import math
from typing import Any, NamedTuple


class Score(NamedTuple):
    """name: of a metric; None: the held-out loss. maximise: whether more is better."""

    name: str | None = None
    maximise: bool = False

    def worth(self, value: float | None) -> float:
        """The less the better; infinite where the figure is none."""
        if value is None or not math.isfinite(value):
            return math.inf
        return -value if self.maximise else value

    def __str__(self) -> str:
        return f"{'highest' if self.maximise else 'lowest'} {self.name or 'loss'}"


LEAST_LOSS = Score()


def score_of(score: Any, maximise: Any) -> Score:
    """Of the arguments of a loop, refused where they are none."""
    if score is not None and not isinstance(score, str):
        raise TypeError(
            f"score: expected the name of a metric, got {type(score).__name__}"
        )
    if not isinstance(maximise, bool):
        raise TypeError(f"maximise: expected True or False, got {maximise!r}")
    if maximise and score is None:
        raise ValueError("maximise: a loss is minimised; expected score= beside it")
    return Score(score, maximise)


def refuse_unknown(score: Score, names: Any) -> None:
    """Refuses a name of none of these figures."""
    if score.name is not None and score.name not in names:
        known = ", ".join(sorted(names)) or "none"
        raise ValueError(
            f"score: expected the name of a metric ({known}), got {score.name!r}"
        )
