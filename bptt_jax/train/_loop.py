"""The loop: many steps a dispatch, evaluation, metrics, checkpoints, and the way back.

Dispatches begin at multiples of `Plan.per_dispatch`, checkpoints and evaluations fall on
their ends, and a batch depends on its position alone. So a run that was stopped and
continued goes through the same programs with the same numbers as one that was not.

While the device works on one dispatch the host writes down the one before.
"""

import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from bptt_jax import estimators
from bptt_jax._factory import is_whole, plain
from bptt_jax._files import locked, replace_json
from bptt_jax._processes import anyone, everywhere, telling, together
from bptt_jax._processes import first as first_process
from bptt_jax.train import _record
from bptt_jax.train._checkpoint import Best, Checkpoints, copied
from bptt_jax.train._metrics import MetricsFile, missing, ranges
from bptt_jax.train._step import TrainState, evaluator, init, many_steps
from bptt_jax.types import Estimator, Layer, PyTree, Task


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

    steps: `(position, losses of the dispatch)`; NaN where no step of a batch counts.
    evaluated: `(position, held-out loss)`.
    message: `(text)`; where it is not given, what a caller must know is a warning.
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
    held_out: its mean loss of a step over the held-out batches (`Plan.final_batches`).
    stopped_early: whether patience ended it.
    best: the parameters whose loss was least of all evaluations and the last state, and
        their loss over as many batches. Where the last state is the best it is that one.
    """

    state: TrainState
    held_out: float
    stopped_early: bool
    best: Best


def run(
    task: Task,
    model: Layer,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    plan: Plan,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    mesh: Mesh | None = None,
    progress: Progress = Progress(),
    overwrite: bool = False,
    reschedule: bool = False,
) -> Run:
    """Trains until the plan ends, from the newest checkpoint in `out` if there is one.

    Stopped at any moment, `kill -9` included, and called again with the same arguments
    it goes on, and all its numbers are those of a run that was not stopped, bit for bit.
    What made a run is kept in `run.json`: the seed, the plan but for its steps, what
    identifies the data (`Task.record`, and the first and the last of them), and
    fingerprints of model, estimator, optimizer and initial parameters that see every
    constant. With other arguments the folder is refused. After another version of JAX or
    of this library the fingerprints are not compared, which is said.

    More `plan.steps` than before go on where the run ended.

    Args:
      task: streams and objective.
      model: a layer.
      estimator: where gradients come from.
      optimizer: an optax optimizer, see `train.step`; clipping is one of its parts.
      plan: how long and how often.
      out: folder for `run.json`, `metrics.jsonl` and `checkpoint/`; made where it is
        missing.
      seed: of everything that is drawn.
      mesh: of one axis: batches are spread over its devices, of all processes
        (`estimators.data_parallel`); all processes call this with the same arguments.
      progress: what is told meanwhile.
      overwrite: where `out` holds another run, that one is moved into a folder of its
        own in there, and this one begins. The same run goes on as ever.
      reschedule: where the plan has more steps than before, the optimizer may be another
        one of the same structure, whose schedule runs over all of them: it applies from
        here, which is recorded and said. The result is not that of one long run.

    Returns:
      The last state and its held-out loss, and the best parameters.

    Raises:
      NonFiniteError: a loss, a gradient or an update was not finite.
      KeyboardInterrupt: `progress.interrupted` said so; the state is saved.
      ValueError: the plan is impossible, another process trains in `out`, it holds
        another run, or the newest checkpoint is damaged; nothing was changed.

    >>> import pathlib, tempfile, optax
    >>> from bptt_jax import cells, estimators, models, tasks, train
    >>> task = tasks.adding(batch=8, T=10)
    >>> model = models.features((cells.lstm(2, 16),), 1, 16)
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> done = train.run(task, model, estimators.exact(model, task.objective),
    ...                  optax.adam(1e-2), train.Plan(steps=20), folder)
    >>> int(done.state.position), sorted(path.name for path in folder.iterdir())
    (20, ['checkpoint', 'metrics.jsonl', 'run.json'])
    """
    plan = _checked(plan)
    out, say = _folder(out), telling(progress)
    with locked(out, say):
        return _run(
            task, model, estimator, optimizer, plan, out, seed, mesh, progress,
            overwrite, reschedule, say,
        )  # fmt: skip


def _run(
    task, model, estimator, optimizer, plan, out, seed, mesh, progress,
    overwrite, reschedule, say,
) -> Run:  # fmt: skip
    state = init(model, estimator, optimizer, task.train, jax.random.key(seed))
    now = _record.made_of(task, model, estimator, optimizer, plan, seed, state)
    there = _found(out, now, overwrite, reschedule, say)
    if mesh is not None:
        state = everywhere(state, mesh)
        estimator = estimators.data_parallel(estimator, mesh)
    checkpoints = Checkpoints(out / "checkpoint", plan.keep)
    try:
        state = checkpoints.restore(state) or state
        position = int(state.position)
        best = checkpoints.restore_best(state.params)
        _claim(out, there, now, position, say)
        metrics = MetricsFile(out / "metrics.jsonl")
        lines = metrics.resume(position, say)
        if lacks := missing(lines, position):
            say(f"{metrics.path} lacks steps {ranges(lacks)} of {position:,}")
        loop = _Loop(task, model, estimator, optimizer, plan, progress, metrics, best)
        if position >= plan.steps or loop.out_of_patience():
            say(
                f"finished already: {out} has all {position:,} steps; nothing is trained"
            )
        elif position:
            progress.message(f"continues at step {position:,}")
        state, early = loop.go(state, checkpoints)
        return loop.end(state, early)
    finally:
        checkpoints.close()


def _folder(out: Any) -> pathlib.Path:
    try:
        return pathlib.Path(out)
    except TypeError:
        raise TypeError(
            f"out: expected a path of a folder, got {type(out).__name__}"
        ) from None


def _found(
    out: pathlib.Path, now: dict, overwrite: bool, reschedule: bool, say: Callable
) -> dict | None:
    """The record in the folder, if the run there is this one; None where is none."""
    ways = "choose another folder (out), or overwrite=True, which moves that run aside"
    try:
        there = _record.read(out)
        if there is None:
            return None
        differs = _record.differences(there, now)
        longer = now["steps"] > there["steps"]
        if longer and set(differs) == {"optimizer"}:
            if reschedule:
                return there
            ways += ", or reschedule=True, which goes on with the new optimizer"
        if not differs:
            return there
        what = ", ".join(differs.values())
        problem = f"{out} holds another run; what differs: {what}"
    except ValueError as error:  # no record that can be read
        problem = str(error)
    together("record read")
    if not overwrite:
        raise ValueError(f"{problem}; nothing was changed; {ways}")
    if first_process():
        say(f"{problem}; it was moved to {_record.move_aside(out)}")
    together("moved aside")
    return None


def _claim(
    out: pathlib.Path, there: dict | None, now: dict, position: int, say: Callable
) -> None:
    """Writes the record, or what has changed since; nothing is trained before."""
    if position > now["steps"]:
        raise ValueError(
            f"{out} holds {position:,} steps of this run, more than the plan's "
            f"{now['steps']:,}; nothing was changed; choose another folder (out)"
        )
    together("record read")
    if there is None:
        new = now
    elif _record.same(there, now):
        return
    else:
        new = _record.continued(there, now, position)
        for text in _record.from_here(there, now):
            say(f"from step {position:,} on: {text}")
    if first_process():
        replace_json(out / _record.FILE, new)
    together("record written")


class _Loop:
    """What `run` has set up, and the loop over dispatches."""

    def __init__(
        self, task, model, estimator, optimizer, plan, progress, metrics, best
    ):
        self.task, self.plan, self.progress = task, plan, progress
        self.metrics, self.best = metrics, best
        self.advance = many_steps(estimator, optimizer, task.train.batch)
        self.evaluator = evaluator(
            model, task.objective, task.held_out.batch, task.stateful
        )

    def go(self, state: TrainState, checkpoints: Checkpoints):
        """`(last state, whether patience ended it)`."""
        plan, position = self.plan, int(state.position)
        early, running = self.out_of_patience(), None
        if position >= plan.steps and not early:
            self.compare(position, state)
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
            if ends:
                self.compare(position, state)
            if saves or early:
                checkpoints.save(state, self.best)
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
        real = record.get("real", fine)
        self.progress.steps(
            position + len(fine), np.where(real, record["loss"], np.nan)
        )

    def evaluate(self, position: int, state: TrainState) -> None:
        loss, better = self.compare(position, state)
        if not better:
            self.best = self.best._replace(since=self.best.since + 1)
        self.metrics.append([dict(step=position, held_out=loss)])
        self.progress.evaluated(position, loss)

    def compare(self, position: int, state: TrainState) -> tuple[float, bool]:
        """The loss over the batches of an evaluation, and whether it is the least."""
        loss = self.held_out_loss(state.params, self.plan.evaluate_batches)
        if not np.isfinite(loss):
            raise NonFiniteError(position)
        better = self.best is None or loss < self.best.held_out
        if better:
            self.best = Best(copied(state.params), position, loss)
        return loss, better

    def end(self, state: TrainState, early: bool) -> Run:
        """Over more batches; written down once, however often it is called again."""
        position, n = int(state.position), self.plan.final_batches
        last = self.held_out_loss(state.params, n)
        is_last = self.best.position == position
        loss = last if is_last else self.held_out_loss(self.best.params, n)
        best = self.best._replace(held_out=loss)
        line = dict(
            step=position,
            final_held_out=last,
            best_step=best.position,
            best_held_out=loss,
        )
        if not any(
            "final_held_out" in there and there["step"] == line["step"]
            for there in self.metrics.lines()
        ):
            self.metrics.append([line])
        return Run(state, last, early, best)

    def held_out_loss(self, params: PyTree, at_most: int) -> float:
        """The mean over the first batches, some at a time."""
        n, some = self.task.held_out.length or at_most, self.plan.evaluate_batches
        sums = None
        for first in range(0, min(n, at_most), some):
            items = self.task.held_out.read(first, min(some, min(n, at_most) - first))
            sums = self.evaluator(params, sums, items)
        assert sums is not None
        if not float(sums.steps):
            raise ValueError(
                f"task: no step of its first {min(n, at_most)} held-out batches counts"
            )
        return float(sums.losses) / float(sums.steps)

    def out_of_patience(self) -> bool:
        patience = self.plan.patience
        return None not in (patience, self.best) and self.best.since >= patience


def _due(position: int, every: int, n: int) -> bool:
    """Whether a multiple of `every` lies in the last n steps."""
    return position // every > (position - n) // every


def _lines(position: int, record: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Of each step its metrics, loss first; of one that counts for nothing that it is."""
    names = sorted(set(record) - {"real"}, reverse=True)
    real = record.get("real", np.ones(len(record["loss"]), bool))
    return [
        dict(
            step=position + i + 1,
            **({k: float(record[k][i]) for k in names} if real[i] else {"real": False}),
        )
        for i in range(len(real))
    ]


def _checked(plan: Plan) -> Plan:
    for name, value in plan._asdict().items():
        whole = is_whole(value) and value >= 1
        if not (whole or (name == "patience" and value is None)):
            raise ValueError(
                f"{name}: expected a whole number of at least 1, got {value!r}"
            )
    return Plan(*map(plain, plan))
