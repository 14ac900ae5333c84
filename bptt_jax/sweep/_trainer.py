"""A training as a function from configurations to scores, for who chooses them elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bptt_jax._factory import plain, positive
from bptt_jax._score import score_of
from bptt_jax.sweep import _group, _results, _rows
from bptt_jax.sweep._group import Group
from bptt_jax.sweep._program import (
    Program,
    column,
    configs,
    mesh_of,
    program,
    refuse_early,
)
from bptt_jax.sweep._training import Training, as_training


def trainer(
    training: Training | Callable,
    *,
    steps: int,
    lanes: int = 8,
    evaluate_every: int | None = None,
    score: str | None = None,
) -> Callable[[Sequence[Mapping[str, Any]]], list[float]]:
    """A function `configurations -> scores`, compiled once for any number of them.

    For optimizers of hyperparameters that ask and are told (Optuna, Ax, skopt): they
    choose, this trains what they chose, `lanes` at a time as one program on one device.

    Args:
      training: as of `sweep.run`, without static columns.
      steps: of each configuration.
      lanes: trained at a time; a list of another length is filled up, so take a multiple.
      evaluate_every: as of `sweep.run`; of a training without a held-out part the score is
        the mean loss since the evaluation before the last. None: a twentieth of `steps`.
      score: which metric is told; None: the held-out loss, the training loss where there
        is none.

    Returns:
      A function of a list of dictionaries, name -> number; all must have the names of the
      first one it is given, whole numbers where that has them. `seed` makes the key, as in
      `sweep.run`. It gives a number for each, those of `sweep.run` with as many lanes on
      one device; NaN where the training diverged.

    Raises:
      ValueError, TypeError: an argument, or when it is called a configuration, does not
        fit.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import sweep
    >>> def descent(config, key):
    ...     step = lambda x: (x + config["lr"] * (1 - x), dict(loss=(1 - x) ** 2))
    ...     return jnp.zeros(()), step
    >>> scores = sweep.trainer(descent, steps=10, lanes=2)
    >>> slow, fast, _ = scores([dict(lr=0.01), dict(lr=0.3), dict(lr=0.1)])
    >>> fast < slow
    True
    """
    positive(steps=steps, lanes=lanes)
    if evaluate_every is not None:
        positive(evaluate_every=evaluate_every)
    steps, lanes, every = plain((steps, lanes, evaluate_every))
    return _Trainer(as_training(training), steps, lanes, every, score)


class _Trainer:
    """What `trainer` gives; `kinds` are the columns' dtypes, of the first call."""

    def __init__(self, training, steps, lanes, every, score):
        self.training, self.steps, self.lanes = training, steps, lanes
        self.every, self.score = every or max(1, steps // 20), score_of(score, False)
        self.kinds: dict[str, np.dtype] = {}
        self.program: Program = program(
            training, lanes, mesh_of(jax.local_devices()[:1])
        )

    def __call__(self, configurations: Sequence[Mapping[str, Any]]) -> list[float]:
        columns = self._columns([dict(each) for each in configurations])
        found: list[float] = []
        for at in range(0, len(configurations), self.lanes):
            rows = list(range(at, min(at + self.lanes, len(configurations))))
            found += self._scores(columns, rows)
        return found

    def _columns(self, each: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        names = list(self.kinds) or (list(each[0]) if each else [])
        for i, one in enumerate(each):
            if set(one) != set(names):
                raise ValueError(
                    f"configurations[{i}]: expected {', '.join(names)}, got "
                    f"{', '.join(one) or 'nothing'}"
                )
        values = {name: [plain(one[name]) for one in each] for name in names}
        for name, numbers in values.items():
            _refuse_no_numbers(name, numbers)
        columns = {name: column(name, v) for name, v in values.items()} if each else {}
        if columns and not self.kinds:
            kinds = {k: np.dtype(np.uint32) if k == "seed" else a.dtype
                     for k, a in columns.items()}  # fmt: skip
            columns = {k: a.astype(kinds[k]) for k, a in columns.items()}
            refuse_early(self.training, columns, self.score)
            self.kinds = kinds
        return {k: _as(k, a, self.kinds[k]) for k, a in columns.items()}

    def _scores(self, columns: dict[str, np.ndarray], rows: list[int]) -> list[float]:
        padded = (rows + rows[:1] * self.lanes)[: self.lanes]
        config = configs(columns, padded, self.program.mesh)
        group = Group(self.training, self.program, config, self.every)
        lanes, means, step = self.program.begin(config), {}, 0
        while step < self.steps:
            n = _group.length(step, self.steps, self.every)
            lanes, means = _group.train(group, lanes, step, n)
            step += n
        found, diverged = _group.evaluated(group, lanes, means, len(rows))
        lines = _rows.lines(0, 0, step, True, rows, found, diverged)
        return [_results.score(row, self.score.name) for row in lines]


def _refuse_no_numbers(name: str, values: list[Any]) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name}: expected numbers, got {value!r}")
        if not np.isfinite(value):
            raise ValueError(f"{name}: expected finite numbers, got {value!r}")


def _as(name: str, values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Of the dtype that the program is compiled for."""
    if np.issubdtype(kind, np.integer) and not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"{name}: expected whole numbers, as the first configurations have, got "
            f"{values[0]}"
        )
    return values.astype(kind)
