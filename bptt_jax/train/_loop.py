"""The loop: many steps a dispatch, evaluation, metrics, checkpoints, and the way back.

Dispatches begin at multiples of `Plan.per_dispatch`, checkpoints and evaluations fall on
their ends, and a batch depends on its position alone. So a run that was stopped and
continued goes through the same programs with the same numbers as one that was not.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from bptt_jax.train._checkpoint import Checkpoints
from bptt_jax.train._metrics import MetricsFile
from bptt_jax.train._step import TrainState, evaluator, init, many_steps
from bptt_jax.types import Estimator, Layer, Task


class NonFiniteError(ArithmeticError):
    """A loss or a gradient was NaN or infinite; `step` says where (from 1)."""

    def __init__(self, step: int):
        super().__init__(
            f"the loss or its gradient is not finite at step {step}; the last good "
            "checkpoint is kept. Try a smaller --lr or a smaller --clip"
        )
        self.step = step


class Plan(NamedTuple):
    """How long and how often; all in steps.

    steps: in all.
    per_dispatch: steps in one call of the compiled program.
    evaluate_every, checkpoint_every: rounded up to ends of dispatches.
    evaluate_batches: held-out batches of an evaluation; the last one takes all.
    patience: evaluations without a better held-out loss before the run stops; None: never.
    keep: checkpoints kept.
    """

    steps: int
    per_dispatch: int = 10
    evaluate_every: int = 100
    checkpoint_every: int = 100
    evaluate_batches: int = 20
    patience: int | None = None
    keep: int = 3


class Progress(NamedTuple):
    """What the loop tells while it runs, each a function; by default nothing.

    steps: `(position, losses of the dispatch)`.
    evaluated: `(position, held-out loss)`.
    message: `(text)`.
    """

    steps: Callable = lambda position, losses: None
    evaluated: Callable = lambda position, loss: None
    message: Callable = lambda text: None


class Run(NamedTuple):
    """How a run ended.

    state: the last state. held_out: mean loss of a step over all held-out batches.
    stopped_early: whether patience ended it.
    """

    state: TrainState
    held_out: float
    stopped_early: bool


def run(
    task: Task,
    model: Layer,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    plan: Plan,
    out: pathlib.Path,
    *,
    seed: int = 0,
    progress: Progress = Progress(),
) -> Run:
    """Trains until the plan ends, from the newest checkpoint in `out` if there is one.

    Args:
      task: streams and objective.
      model: a layer.
      estimator: where gradients come from.
      optimizer: any optax optimizer; clipping is one of its parts.
      plan: how long and how often.
      out: folder for `metrics.jsonl` and `checkpoint/`; made where it is missing.
      seed: of everything that is drawn.
      progress: what is told meanwhile.

    Returns:
      The last state and its held-out loss.

    Raises:
      NonFiniteError: a loss or a gradient was not finite.
      ValueError: the plan is impossible, or no checkpoint can be read.
    """
    _check(plan)
    out.mkdir(parents=True, exist_ok=True)
    state = init(model, estimator, optimizer, task.train, jax.random.key(seed))
    checkpoints = Checkpoints(out / "checkpoint", plan.keep)
    try:
        found = checkpoints.restore(state, progress.message)
        if found is not None:
            state = found
            progress.message(f"continues at step {int(state.position)}")
        metrics = MetricsFile(out / "metrics.jsonl")
        held = _held_out(metrics.resume(int(state.position)))
        return _go_on(
            task, model, estimator, optimizer, plan, progress,
            state, checkpoints, metrics, held,
        )  # fmt: skip
    finally:
        checkpoints.close()


def _go_on(
    task, model, estimator, optimizer, plan, progress, state, checkpoints, metrics, held
) -> Run:
    advance = many_steps(estimator, optimizer, task.train.batch)
    mean_loss = evaluator(model, task.objective, task.held_out.batch, task.stateful)
    position, early = int(state.position), _out_of_patience(plan, held)
    while position < plan.steps and not early:
        n = min(plan.per_dispatch, plan.steps - position)
        state, record = advance(state, task.train.read(position, n))
        record = jax.tree.map(np.asarray, record)
        if int(state.bad) >= 0:
            raise NonFiniteError(int(state.bad) + 1)
        metrics.append(_lines(position, record))
        position += n
        progress.steps(position, record["loss"])
        if _due(position, plan.evaluate_every, n) and position < plan.steps:
            items = task.held_out.read(0, _batches(task, plan.evaluate_batches))
            held.append(float(mean_loss(state.params, items)))
            metrics.append([dict(step=position, held_out=held[-1])])
            progress.evaluated(position, held[-1])
            early = _out_of_patience(plan, held)
        if _due(position, plan.checkpoint_every, n) or position == plan.steps or early:
            checkpoints.save(state)
    final = _evaluate_all(task, mean_loss, state, plan)
    if not any("final_held_out" in line for line in metrics.lines()):
        metrics.append([dict(step=position, final_held_out=final)])
    return Run(state, final, early)


def _due(position: int, every: int, n: int) -> bool:
    """Whether a multiple of `every` lies in the last n steps."""
    return position // every > (position - n) // every


def _batches(task: Task, at_most: int | None) -> int:
    length = task.held_out.length
    if length is None or at_most is None:
        return length or at_most or 1
    return min(length, at_most)


def _evaluate_all(task: Task, mean_loss, state, plan: Plan) -> float:
    n = task.held_out.length or plan.evaluate_batches
    return float(mean_loss(state.params, task.held_out.read(0, n)))


def _lines(position: int, record: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    names = sorted(record, reverse=True)  # loss first
    return [
        dict(step=position + i + 1, **{name: float(record[name][i]) for name in names})
        for i in range(len(record["loss"]))
    ]


def _held_out(lines: list[dict[str, Any]]) -> list[float]:
    return [line["held_out"] for line in lines if "held_out" in line]


def _out_of_patience(plan: Plan, held: list[float]) -> bool:
    if plan.patience is None or not held:
        return False
    return len(held) - 1 - int(np.argmin(held)) >= plan.patience


def _check(plan: Plan) -> None:
    for name, value in plan._asdict().items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not (whole or (name == "patience" and value is None)):
            raise ValueError(
                f"{name}: expected a whole number of at least 1, got {value!r}"
            )
