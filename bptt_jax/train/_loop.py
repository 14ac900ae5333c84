"""The loop: many steps a dispatch, evaluation, metrics, checkpoints, and the way back.

Dispatches begin at multiples of `Plan.per_dispatch`, checkpoints and evaluations fall on
their ends, and a batch depends on its position alone. So a run that was stopped and
continued goes through the same programs with the same numbers as one that was not.

While the device works on one dispatch the host writes down the one before.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from bptt_jax import estimators
from bptt_jax._processes import anyone, everywhere
from bptt_jax.train._checkpoint import Checkpoints
from bptt_jax.train._metrics import MetricsFile
from bptt_jax.train._step import TrainState, evaluator, init, many_steps
from bptt_jax.types import Estimator, Layer, Task


class NonFiniteError(ArithmeticError):
    """A loss, gradient or update was NaN or infinite; `step` says where (from 1)."""

    def __init__(self, step: int):
        super().__init__(
            f"the loss, its gradient or the update is not finite at step {step}; the last "
            "good checkpoint is kept. Try a smaller learning rate or clip the gradient lower"
        )
        self.step = step


class Plan(NamedTuple):
    """How long and how often; all in steps.

    steps: in all.
    per_dispatch: steps in one call of the compiled program.
    evaluate_every, checkpoint_every: rounded up to ends of dispatches.
    evaluate_batches: held-out batches of an evaluation.
    final_batches: held-out batches of the last one (fewer where there are fewer).
    patience: evaluations without a better held-out loss before the run stops; None: never.
    keep: checkpoints kept.
    """

    steps: int
    per_dispatch: int = 10
    evaluate_every: int = 100
    checkpoint_every: int = 100
    evaluate_batches: int = 20
    final_batches: int = 1000
    patience: int | None = None
    keep: int = 3


class Progress(NamedTuple):
    """What the loop tells while it runs, each a function; by default nothing.

    steps: `(position, losses of the dispatch)`.
    evaluated: `(position, held-out loss)`.
    message: `(text)`.
    interrupted: `() -> bool`, asked after each dispatch; True: save, and raise
        `KeyboardInterrupt`.
    """

    steps: Callable = lambda position, losses: None
    evaluated: Callable = lambda position, loss: None
    message: Callable = lambda text: None
    interrupted: Callable = lambda: False


class Run(NamedTuple):
    """How a run ended.

    state: the last state.
    held_out: mean loss of a step over the held-out batches (`Plan.final_batches`).
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
    mesh: Mesh | None = None,
    progress: Progress = Progress(),
) -> Run:
    """Trains until the plan ends, from the newest checkpoint in `out` if there is one.

    Stopped at any moment, `kill -9` included, and called again with the same arguments
    it goes on, and all its numbers are those of a run that was not stopped, bit for bit.

    Args:
      task: streams and objective.
      model: a layer.
      estimator: where gradients come from.
      optimizer: any optax optimizer; clipping is one of its parts.
      plan: how long and how often.
      out: folder for `metrics.jsonl` and `checkpoint/`; made where it is missing.
      seed: of everything that is drawn.
      mesh: of one axis: batches are spread over its devices, of all processes
        (`estimators.data_parallel`); all processes call this with the same arguments.
      progress: what is told meanwhile.

    Returns:
      The last state and its held-out loss.

    Raises:
      NonFiniteError: a loss, a gradient or an update was not finite.
      KeyboardInterrupt: `progress.interrupted` said so; the state is saved.
      ValueError: the plan is impossible, or the newest checkpoint is damaged.

    >>> import pathlib, tempfile, optax
    >>> from bptt_jax import cells, estimators, models, tasks, train
    >>> task = tasks.adding(batch=8, T=10)
    >>> model = models.features((cells.lstm(2, 16),), 1, 16)
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> done = train.run(task, model, estimators.exact(model, task.objective),
    ...                  optax.adam(1e-2), train.Plan(steps=20), folder)
    >>> int(done.state.position), sorted(path.name for path in folder.iterdir())
    (20, ['checkpoint', 'metrics.jsonl'])
    """
    _check(plan)
    out.mkdir(parents=True, exist_ok=True)
    state = init(model, estimator, optimizer, task.train, jax.random.key(seed))
    if mesh is not None:
        state = everywhere(state, mesh)
        estimator = estimators.data_parallel(estimator, mesh)
    checkpoints = Checkpoints(out / "checkpoint", plan.keep)
    try:
        found = checkpoints.restore(state)
        if found is not None:
            state = found
            progress.message(f"continues at step {int(state.position):,}")
        metrics = MetricsFile(out / "metrics.jsonl")
        held = _held_out(metrics.resume(int(state.position)))
        loop = _Loop(task, model, estimator, optimizer, plan, progress, metrics, held)
        state, early = loop.go(state, checkpoints)
        return Run(state, loop.evaluate_last(state), early)
    finally:
        checkpoints.close()


class _Loop:
    """What `run` has set up, and the loop over dispatches."""

    def __init__(
        self, task, model, estimator, optimizer, plan, progress, metrics, held
    ):
        self.task, self.plan, self.progress = task, plan, progress
        self.metrics, self.held = metrics, held
        self.advance = many_steps(estimator, optimizer, task.train.batch)
        self.evaluator = evaluator(
            model, task.objective, task.held_out.batch, task.stateful
        )

    def go(self, state: TrainState, checkpoints: Checkpoints):
        """`(last state, whether patience ended it)`."""
        plan, position = self.plan, int(state.position)
        early, running = self.out_of_patience(), None
        while position < plan.steps and not early:
            n = min(plan.per_dispatch, plan.steps - position)
            state, record = self.advance(state, self.task.train.read(position, n))
            self.write_down(running)  # the one before, while the device works
            running, position = (position, record), position + n
            (stop,), ends = anyone(self.progress.interrupted()), position == plan.steps
            evaluates = _due(position, plan.evaluate_every, n) and not ends
            saves = stop or ends or _due(position, plan.checkpoint_every, n)
            if evaluates or saves:
                running = self.write_down(running)
            if evaluates:
                self.evaluate(position, state)
                early = self.out_of_patience()
            if saves or early:
                checkpoints.save(state)
            if stop:
                raise KeyboardInterrupt
        return state, early

    def write_down(self, running: tuple | None) -> None:
        """Waits for a dispatch `(position, record)`; its metrics, unless not finite."""
        if running is None:
            return
        position, record = running[0], jax.tree.map(np.asarray, running[1])
        fine = np.logical_and.reduce([np.isfinite(a) for a in record.values()])
        if not fine.all():
            raise NonFiniteError(position + int(np.argmin(fine)) + 1)
        self.metrics.append(_lines(position, record))
        self.progress.steps(position + len(fine), record["loss"])

    def evaluate(self, position: int, state: TrainState) -> None:
        loss = self.held_out_loss(state, self.plan.evaluate_batches)
        if not np.isfinite(loss):
            raise NonFiniteError(position)
        self.held.append(loss)
        self.metrics.append([dict(step=position, held_out=loss)])
        self.progress.evaluated(position, loss)

    def evaluate_last(self, state: TrainState) -> float:
        """Written down once, however often a finished run is called again."""
        loss = self.held_out_loss(state, self.plan.final_batches)
        line = dict(step=int(state.position), final_held_out=loss)
        if not any(
            "final_held_out" in there and there["step"] == line["step"]
            for there in self.metrics.lines()
        ):
            self.metrics.append([line])
        return loss

    def held_out_loss(self, state: TrainState, at_most: int) -> float:
        """The mean over the first batches, some at a time."""
        n, some = self.task.held_out.length or at_most, self.plan.evaluate_batches
        sums = None
        for first in range(0, min(n, at_most), some):
            items = self.task.held_out.read(first, min(some, min(n, at_most) - first))
            sums = self.evaluator(state.params, sums, items)
        assert sums is not None
        return float(sums.losses) / float(sums.steps)

    def out_of_patience(self) -> bool:
        if self.plan.patience is None or not self.held:
            return False
        return len(self.held) - 1 - int(np.argmin(self.held)) >= self.plan.patience


def _due(position: int, every: int, n: int) -> bool:
    """Whether a multiple of `every` lies in the last n steps."""
    return position // every > (position - n) // every


def _lines(position: int, record: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    names = sorted(record, reverse=True)  # loss first
    return [
        dict(step=position + i + 1, **{name: float(record[name][i]) for name in names})
        for i in range(len(record["loss"]))
    ]


def _held_out(lines: list[dict[str, Any]]) -> list[float]:
    return [line["held_out"] for line in lines if "held_out" in line]


def _check(plan: Plan) -> None:
    for name, value in plan._asdict().items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not (whole or (name == "patience" and value is None)):
            raise ValueError(
                f"{name}: expected a whole number of at least 1, got {value!r}"
            )
