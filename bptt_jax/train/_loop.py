"""The loop: many updates a dispatch, evaluation, metrics, checkpoints, and the way back.

Dispatches begin at multiples of `RunOptions.per_dispatch`, checkpoints and evaluations fall on
their ends, and a batch depends on its position alone. So a run that was stopped and
continued goes through the same programs with the same numbers as one that was not.

While the device works on one dispatch the host writes down the one before, and a thread
reads the next one's items.
"""

import contextlib
import os
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from bptt_jax import _deprecated, estimators
from bptt_jax._files import locked, path_of
from bptt_jax._processes import anyone, everywhere, telling
from bptt_jax._score import refuse_unknown, score_of
from bptt_jax.layers import model_of
from bptt_jax.progress import Progress, Start, Status, or_shown
from bptt_jax.train import _folder, _record
from bptt_jax.train._arguments import refuse_unfit
from bptt_jax.train._checkpoint import Checkpoints
from bptt_jax.train._clock import Clock
from bptt_jax.train._evaluate import LOSS
from bptt_jax.train._held_out import HeldOut
from bptt_jax.train._lines import ended, evaluated, of_updates
from bptt_jax.train._load import config
from bptt_jax.train._metrics import MetricsFile, missing, ranges
from bptt_jax.train._options import RunOptions, checked, due
from bptt_jax.train._reading import Reading, dispatches
from bptt_jax.train._run import Run
from bptt_jax.train._step import TrainState, init, many_steps
from bptt_jax.types import Estimator, Layer, Sections, Task


class NonFiniteError(ArithmeticError):
    """A loss, gradient or update was NaN or infinite; `step`: in which update (from 1)."""

    def __init__(self, step: int):
        super().__init__(
            f"the loss, its gradient or the update is not finite at step {step}; the last "
            "good checkpoint is kept. Try a smaller learning rate or clip the gradient lower"
        )
        self.step = step


@_deprecated.argument("plan", "options", gone="0.3.0")
def run(
    task: Task,
    model: Layer | Sections,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    options: RunOptions,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    reschedule: bool = False,
    score: str | None = None,
    maximise: bool = False,
) -> Run:
    """Trains so many updates, from the newest checkpoint in `out` if there is one.

    Stopped at any moment, `kill -9` included, and called again with the same arguments
    it goes on, and all its numbers are those of a run that was not stopped, bit for bit.
    What made a run is kept in `run.json`: the seed, the options but for `updates`, what
    identifies the data (`Task.record`, and the first and the last of them), and
    fingerprints of model, estimator, optimizer and initial parameters that see every
    constant. With other arguments the folder is refused. After another version of JAX or
    of this library the fingerprints are not compared, which is said.

    With more `options.updates` than before the run goes on where it ended.

    Args:
      task: streams and objective.
      model: a layer, or `models.sections`.
      estimator: where gradients come from.
      optimizer: an optax optimizer, see `train.step`; clipping is one of its parts.
      options: how long and how often.
      out: folder for `run.json`, `metrics.jsonl`, `timings.jsonl` and `checkpoint/`; made
        where it is missing.
      seed: of everything that is drawn.
      mesh: of one axis: batches are spread over its devices, of all processes
        (`estimators.data_parallel`); all processes call this with the same arguments.
      progress: what is told meanwhile; None: `progress.shown()`, a screen where there is a
        terminal or a notebook. `progress.silent`: nothing.
      overwrite: where `out` holds another run, that one is moved into a folder of its
        own in there, and this one begins. The same run goes on as ever.
      reschedule: where there are more updates than before, the optimizer may be another
        one of the same structure, whose schedule runs over all of them: it applies from
        here, which is recorded and said. The result is not that of one long run.
      score: which of `Task.metrics` says what is best, for `Run.best` and for patience;
        None: the held-out loss. One that is not finite is never better.
      maximise: whether a greater score is better, as an accuracy is.

    Returns:
      The last state and its held-out loss, and the best parameters.

    Raises:
      NonFiniteError: a loss, a gradient or an update was not finite.
      KeyboardInterrupt: `progress.interrupted` said so; the state is saved.
      ValueError: an option is impossible, another process trains in `out`, it holds
        another run, or the newest checkpoint is damaged; nothing was changed.

    >>> import pathlib, tempfile, optax
    >>> from bptt_jax import cells, estimators, models, tasks, train
    >>> task = tasks.adding(batch=8, T=10)
    >>> model = models.features((cells.lstm(2, 16),), 1, 16)
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> done = train.run(task, model, estimators.exact(model, task.objective),
    ...                  optax.adam(1e-2), train.RunOptions(updates=20), folder)
    >>> int(done.state.position), sorted(path.name for path in folder.iterdir())
    (20, ['checkpoint', 'metrics.jsonl', 'run.json', 'timings.jsonl'])
    """
    refuse_unfit(task, model, estimator, seed, mesh)
    options, best = checked(options), score_of(score, maximise)
    refuse_unknown(best, task.metrics)
    progress = or_shown(progress)
    out, say = path_of(out), telling(progress)
    with locked(out, say):
        return _run(
            task, model, estimator, optimizer, options, out, seed, mesh, progress,
            overwrite, reschedule, best, say,
        )  # fmt: skip


def _run(
    task, model, estimator, optimizer, options, out, seed, mesh, progress,
    overwrite, reschedule, score, say,
) -> Run:  # fmt: skip
    state = init(model, estimator, optimizer, task.train, jax.random.key(seed))
    estimator = estimators.bucketed(estimator, task.train.buckets)
    now = _record.made_of(
        task, model, estimator, optimizer, options, seed, state, score
    )
    saved = _folder.found(out, now, overwrite, reschedule, say)
    if mesh is not None:
        state = everywhere(state, mesh)
        estimator = estimators.data_parallel(estimator, mesh)
    checkpoints = Checkpoints(out / "checkpoint", options.keep)
    try:
        state = checkpoints.restore(state) or state
        position = int(state.position)
        best = checkpoints.restore_best(state.params)
        _folder.claim(out, saved, now, position, say)
        _record.keep_tokenizer(out, task.text)
        if position and task.train.place is not None:
            kept = checkpoints.restore_place()
            task.train.place.restore(position, kept, say)
        metrics = MetricsFile(out / "metrics.jsonl")
        lines = metrics.resume(position, say)
        if lacks := missing(lines, position):
            say(f"{metrics.path} lacks steps {ranges(lacks)} of {position:,}")
        held_out = HeldOut(task, model, options.evaluate_batches, score, best)
        clock = Clock(out / "timings.jsonl", position, say)
        loop = _Loop(
            task, estimator, optimizer, options, progress, metrics, held_out, clock
        )
        if position >= options.updates or loop.out_of_patience():
            say(
                f"finished already: {out} has all {position:,} steps; nothing is trained"
            )
        elif position:
            progress.message(f"continues at step {position:,}")
        progress.begun(Start(position, options.updates, task, out))
        try:
            state, early = loop.go(state, checkpoints)
            done = loop.end(state, early)
        finally:
            progress.ended()
        kept = _record.read(out) or now
        return done._replace(
            model=model_of(model), task=task, config=config(out, kept),
            history=metrics.lines(),
        )  # fmt: skip
    finally:
        checkpoints.close()


class _Loop:
    """What `run` has set up, and the loop over dispatches."""

    def __init__(
        self, task, estimator, optimizer, options, progress, metrics, held_out, clock
    ):
        self.task, self.options, self.progress = task, options, progress
        self.metrics, self.held_out, self.clock = metrics, held_out, clock
        self.advance = many_steps(estimator, optimizer, task.train.batch)

    def go(self, state: TrainState, checkpoints: Checkpoints):
        """`(last state, whether patience ended it)`."""
        options, position = self.options, int(state.position)
        early, running = self.out_of_patience(), None
        if position >= options.updates and not early:
            self.compare(position, state)
        if early or position >= options.updates:
            return state, early
        wanted = dispatches(position, options.updates, options.per_dispatch)
        with contextlib.closing(Reading(self.task.train.read, wanted)) as reading:
            self.clock.starts(reading)
            while position < options.updates and not early:
                n, items = reading.next()
                self.clock.counts(self.task.train.batch, items)
                state, record = self.advance(state, items)
                self.write_down(running)  # the one before, while the device works
                running, position = (position, record), position + n
                (stop,) = anyone(self.progress.interrupted())
                ends = position == options.updates
                evaluates = due(position, options.evaluate_every, n) and not ends
                saves = stop or ends or due(position, options.checkpoint_every, n)
                if evaluates or saves:
                    running = self.write_down(running)
                with self.clock.stopped():
                    if evaluates:
                        self.evaluate(position, state)
                        early = self.out_of_patience()
                    if ends:
                        figures, _ = self.compare(position, state)
                        self.progress.measured(position, figures)
                    if saves or early:
                        checkpoints.save(
                            state, self.held_out.best, self.place(position)
                        )
                if stop:
                    raise KeyboardInterrupt
        return state, early

    def place(self, position: int) -> dict[str, Any] | None:
        """Of the reader, before the first batch that was not trained on."""
        place = self.task.train.place
        return None if place is None else place.save(position)

    def write_down(self, running: tuple | None) -> None:
        """Waits for a dispatch `(position, record)`; its metrics, unless not finite."""
        if running is None:
            return
        position, record = running[0], jax.tree.map(np.asarray, running[1])
        fine = np.logical_and.reduce([np.isfinite(a) for a in record.values()])
        if not fine.all():
            raise NonFiniteError(position + int(np.argmin(fine)) + 1)
        self.metrics.append(of_updates(position, record))
        real = record.get("real", fine)
        self.progress.updates(
            position + len(fine), np.where(real, record["loss"], np.nan)
        )
        best, total = self.held_out.now(), self.options.updates
        rates = self.clock.dispatched(position + len(fine), len(fine))
        self.progress.advanced(Status(position + len(fine), total, 1, best, rates))

    def evaluate(self, position: int, state: TrainState) -> None:
        figures, better = self.compare(position, state)
        if not better:
            self.held_out.waited()
        self.metrics.append([evaluated(position, figures)])
        self.progress.evaluated(position, figures[LOSS])
        self.progress.measured(position, figures)

    def compare(self, position: int, state: TrainState):
        """The figures of an evaluation, and whether it is the best."""
        figures, better = self.held_out.compare(position, state)
        if not np.isfinite(figures[LOSS]):
            raise NonFiniteError(position)
        return figures, better

    def end(self, state: TrainState, early: bool) -> Run:
        """Over more batches; written down once, however often it is called again."""
        position, n = int(state.position), self.options.final_batches
        best = self.held_out.best
        last = self.held_out.figures(state.params, n)
        is_last = best.position == position
        of_best = last if is_last else self.held_out.figures(best.params, n)
        line = ended(position, last, best.position, of_best)
        if not any(
            "final_held_out" in old and old["step"] == position
            for old in self.metrics.lines()
        ):
            self.metrics.append([line])
        score = self.held_out.told(of_best)
        best = best._replace(held_out=of_best[LOSS], score=score)
        return Run(state, last[LOSS], early, best, of_best)

    def out_of_patience(self) -> bool:
        return self.held_out.out_of(self.options.patience)
