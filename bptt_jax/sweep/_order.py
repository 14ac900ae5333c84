"""The order of a sweep's work: rungs, static choices, groups of configurations, units.

Work is cut into units: a group of configurations from one evaluation to the next. Units
have a fixed order and depend on nothing but what is saved, so a sweep that was stopped and
goes on writes the table of one that was not.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bptt_jax._factory import is_whole, plain
from bptt_jax._score import LEAST_LOSS, Score
from bptt_jax.sweep import _halving
from bptt_jax.sweep._group import length
from bptt_jax.sweep._halving import Rung
from bptt_jax.sweep._program import column
from bptt_jax.sweep._space import Space


class Spec(NamedTuple):
    """What makes a sweep what it is; see `run`.

    space: the configurations.
    choices: `(static columns, rows of the space)`, a program each.
    numbers: the columns that are arguments of programs.
    steps: of each choice.
    every: steps between evaluations.
    rungs: one without halving.
    keep: of how many of the best the parameters are kept.
    seconds: between two saves of the group that is running.
    score: what "best" means.
    """

    space: Space
    choices: list[tuple[dict[str, Any], list[int]]]
    numbers: dict[str, np.ndarray]
    steps: list[int]
    every: int
    rungs: list[Rung]
    keep: int
    seconds: float
    score: Score = LEAST_LOSS


class Unit(NamedTuple):
    """Where a sweep is: the next unit of work. step: of the group's configurations."""

    number: int
    rung: int
    choice: int
    group: int
    step: int


def spec(
    space, choices, steps, every, halving, keep, seconds, score=LEAST_LOSS
) -> Spec:
    """The arguments of `run`, checked."""
    if not isinstance(space, Space):
        raise TypeError(f"space: expected a sweep.Space, got {type(space).__name__}")
    numbers = {
        name: column(name, values)
        for name, values in space.columns.items()
        if name not in space.static
    }
    each: list[Any] = [steps(**c) if callable(steps) else steps for c, _ in choices]
    for n in each:
        _refuse_fraction("steps", n)
    if every is not None:
        _refuse_fraction("evaluate_every", every)
    _refuse_fraction("keep", keep)
    each, every, keep = plain((each, every, keep))
    every = every or max(1, max(each) // 20)
    rungs = _halving.rungs(halving, space.size)
    for n in each:
        _refuse_rungs_at_one_step(rungs, n)
    return Spec(space, choices, numbers, list(each), every, rungs, keep, seconds, score)


def _refuse_fraction(name: str, value: Any) -> None:
    if not is_whole(value) or value < 1:
        raise ValueError(
            f"{name}: expected a whole number of at least 1, got {value!r}"
        )


def _refuse_rungs_at_one_step(rungs: list[Rung], steps: int) -> None:
    at = [_halving.until(rung, steps) for rung in rungs]
    if len(set(at)) < len(at):
        raise ValueError(
            f"halving: {len(at)} rungs end at steps {', '.join(map(str, at))}, two at "
            "one; expected more steps or fewer rungs"
        )


class Order:
    """In which order a sweep is worked off; it knows nothing of files and devices."""

    def __init__(self, spec: Spec):
        self.spec = spec
        self.choice_of = {
            i: c for c, (_, rows) in enumerate(spec.choices) for i in rows
        }

    def units(
        self, scores: list[dict[int, float]], size: Callable[[int], int]
    ) -> Iterator[tuple[Unit, list[int]]]:
        """The first unit of each group, and the rows of the space in it.

        Args:
          scores: of each rung, of the configurations that have ended it; read when the
            next rung begins.
          size: `choice -> configurations in a group`.
        """
        number = 0
        for rung in range(len(self.spec.rungs)):
            for unit, rows in self.of_rung(rung, scores, size, number):
                yield unit, rows
                number = unit.number + len(self._ends(rung, unit.choice))

    def of_rung(
        self, rung: int, scores, size: Callable[[int], int], number: int
    ) -> Iterator[tuple[Unit, list[int]]]:
        """The groups of a rung, whose first unit has a number."""
        for choice in range(len(self.spec.choices)):
            for group, rows in enumerate(self._groups(rung, choice, scores, size)):
                yield Unit(number, rung, choice, group, self._from(rung, choice)), rows
                number += len(self._ends(rung, choice))

    def _groups(self, rung: int, choice: int, scores, size) -> list[list[int]]:
        """The rows of a choice that the rung trains, group by group."""
        alive = set(self.alive(rung, scores))
        rows = [i for i in self.spec.choices[choice][1] if i in alive]
        if not rows:
            return []
        n = size(choice)
        return [rows[at : at + n] for at in range(0, len(rows), n)]

    def alive(self, rung: int, scores: list[dict[int, float]]) -> list[int]:
        """The configurations that a rung trains."""
        if rung == 0:
            return list(range(self.spec.space.size))
        return _halving.best(scores[rung - 1], self.spec.rungs[rung].configs)

    def until(self, rung: int, choice: int) -> int:
        """The step at which a rung ends."""
        return _halving.until(self.spec.rungs[rung], self.spec.steps[choice])

    def _from(self, rung: int, choice: int) -> int:
        return self.until(rung - 1, choice) if rung else 0

    def _ends(self, rung: int, choice: int) -> list[int]:
        before, until = self._from(rung, choice), self.until(rung, choice)
        every = self.spec.every
        return [*range(before // every * every + every, until, every), until]

    def ends_of(self, rung: int, config: int) -> list[int]:
        """The steps at which a configuration is evaluated; none where there is no such."""
        if not (0 <= rung < len(self.spec.rungs) and config in self.choice_of):
            return []
        return self._ends(rung, self.choice_of[config])

    def evaluations(self, unit: Unit) -> int:
        """Of a group in a rung."""
        return len(self._ends(unit.rung, unit.choice))

    def before(self, rung: int, config: int) -> int:
        """The step at which a configuration comes into a rung."""
        return self._from(rung, self.choice_of[config])

    def length(self, step: int, until: int) -> int:
        """Steps of the unit that begins at one."""
        return length(step, until, self.spec.every)

    def total(self) -> int:
        """Steps of single configurations, as if all choices took the most steps."""
        shares = [0.0, *(r.share for r in self.spec.rungs)]
        n = sum(
            (b - a) * r.configs
            for a, b, r in zip(shares, shares[1:], self.spec.rungs, strict=False)
        )
        return round(n * max(self.spec.steps))
