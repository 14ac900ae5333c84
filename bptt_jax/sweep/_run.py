"""The loop of a sweep: group after group of its configurations, and the way back."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bptt_jax import _files
from bptt_jax._factory import is_whole, plain
from bptt_jax._processes import anyone, axis_of, cores, first, telling, together
from bptt_jax._score import score_of
from bptt_jax.progress import Progress, Start, Status, or_shown
from bptt_jax.sweep import _executors, _folder, _group, _order, _results, _rows, _store
from bptt_jax.sweep import _layout as layouts
from bptt_jax.sweep._folder import Folder
from bptt_jax.sweep._group import Group
from bptt_jax.sweep._halving import Halving
from bptt_jax.sweep._layout import Layout
from bptt_jax.sweep._order import Order, Spec, Unit
from bptt_jax.sweep._program import Program, configs, mesh_of, program, refuse_early
from bptt_jax.sweep._results import Result
from bptt_jax.sweep._space import Space, groups
from bptt_jax.sweep._standing import Standing, worth_of
from bptt_jax.sweep._tasks import Tasks, pickled
from bptt_jax.sweep._training import Lane, Training, as_training


def run(
    training: Training | Callable,
    space: Space,
    *,
    steps: int | Callable[..., int],
    out: pathlib.Path | str,
    evaluate_every: int | None = None,
    halving: Halving | None = None,
    mesh: Mesh | None = None,
    executor: Any = None,
    lanes: int | None = None,
    keep: int = 3,
    checkpoint_seconds: float = 30.0,
    record: dict[str, Any] | None = None,
    progress: Progress | None = None,
    score: str | None = None,
    maximise: bool = False,
) -> Result:
    """Trains all configurations of a space; again after a stop, it goes on.

    Groups of configurations run as one compiled program, so many lanes on each device as
    are fastest on this machine (measured once and remembered), the rest one group after
    another: memory is that of a group. Each configuration's numbers are, bit for bit,
    those it has in any sweep with the same layout, whatever runs beside it; one that
    diverges is frozen where it was last finite and marked.

    Args:
      training: a `sweep.Training` (`sweep.training` makes those of tasks), or a function
        `(config, key) -> (state, step)` with `step(state) -> (state, metrics)`; `config`
        has the space's numbers by name, traced. Where the space has static columns: a
        function of them, by name, that returns one.
      space: configurations; see `sweep.grid`, `random`, `zip`, `product`, `static`. A
        column `seed` makes the key, `jax.random.key(seed)`; without it all have seed 0.
        Numbers are float32 or int32; whole ones of 2^31 and more uint32.
      steps: of each configuration (of the last rung, with `halving`); or a function of
        the static columns.
      out: folder of the sweep; one that holds another sweep is refused.
      evaluate_every: steps between two rows of the table; None: a twentieth of `steps`.
      halving: `sweep.halving(…)`, to give up the worse configurations early.
      mesh: a mesh of one axis, `jax.make_mesh((n,), ("configs",))`; None: all devices of
        all processes.
      executor: who runs the groups instead of this process: what has the interface of
        `concurrent.futures.Executor`, such as Dask's `Client(…).get_executor(pure=False)`.
        A group is a task of its own, `lanes` configurations on one device; workers may
        come and go. See docs/scaling.md.
      lanes: configurations on a device at a time; None: measured.
      keep: of how many of the best the parameters are kept.
      checkpoint_seconds: between two saves of the group that is running.
      record: what else `sweep.json` is to say (versions, settings), as JSON has it; not
        compared when the sweep goes on.
      progress: what is told meanwhile; None: `progress.shown()`, a screen where there is a
        terminal or a notebook. `progress.silent`: nothing.
      score: which metric of the rows says what is best, for `Result.best` and `halving`;
        None: the held-out loss, the training loss where there is none.
      maximise: whether a greater score is better, as an accuracy is.

    Returns:
      A `Result`; `sweep.load(out)` gives it again.

    Raises:
      ValueError, TypeError: an argument does not fit, another process has `out`, it
        holds another sweep, or is damaged; nothing has been changed.
      KeyboardInterrupt: `progress.interrupted` said so; the state is saved.
      ConnectionError: the executor is gone; what has ended is saved.

    >>> import tempfile, optax
    >>> from bptt_jax import cells, estimators, models, sweep, tasks
    >>> task = tasks.adding(batch=4, T=10)
    >>> model = models.features((cells.gru(2, 8),), 1, 8)
    >>> one = sweep.training(task, model, estimators.exact(model, task.objective),
    ...                      lambda lr: optax.adam(lr))
    >>> space = sweep.grid(lr=[0.1, 0.01], seed=range(2))
    >>> result = sweep.run(one, space, steps=6, out=tempfile.mkdtemp(), lanes=1,
    ...                    evaluate_every=3)
    >>> result.table.num_rows, result.best[0].values["lr"] in (0.1, 0.01)
    (8, True)
    """
    progress = or_shown(progress)
    out, choices, say = _files.path_of(out), groups(space), telling(progress)
    spec = _order.spec(
        space, choices, steps, evaluate_every, halving, keep, checkpoint_seconds,
        score_of(score, maximise),
    )  # fmt: skip
    _check_lanes(lanes)
    lanes, record = plain(lanes), record or {}
    if executor is not None:
        _refuse_beside(executor, mesh)
        made = _trainings(training, spec)  # refused before the folder is touched
        sent = [pickled(one) for one in made]
        with _files.locked(out, say):
            order, folder = _claimed(out, spec, None, record, made)
            return Tasks(order, folder, made, sent, lanes, executor, progress).go()
    mesh = _mesh(mesh, say)
    made = _trainings(training, spec)
    with _files.locked(out, say):
        order, folder = _claimed(out, spec, mesh, record, made)
        return _Sweep(order, folder, made, mesh, lanes, progress).go()


def _refuse_beside(executor: Any, mesh: Mesh | None) -> None:
    _executors.refuse_unfit(executor)
    if mesh is not None:
        raise ValueError(
            "mesh: each device of an executor's workers takes a group of its own; expected "
            "a mesh or an executor"
        )
    if jax.process_count() > 1:
        raise ValueError(
            "executor: expected one process that hands out work, this is one of "
            f"{jax.process_count()}"
        )


def _check_lanes(lanes: Any) -> None:
    if lanes is not None and (not is_whole(lanes) or lanes < 1):
        raise ValueError(f"lanes: expected at least 1, or None, got {lanes!r}")


def _trainings(training: Training | Callable, spec: Spec) -> list[Training]:
    """That of each choice."""
    made = [
        as_training(training(**choice) if spec.space.static else training)
        for choice, _ in spec.choices
    ]
    for one in made:
        refuse_early(one, spec.numbers, spec.score)
    return made


def _claimed(
    out: pathlib.Path, spec: Spec, mesh: Mesh | None, record: dict[str, Any],
    made: list[Training],
) -> tuple[Order, Folder]:  # fmt: skip
    """The sweep's folder, found or made by the first process."""
    if not first():
        together("claimed")  # the others find it there
    about = [one.about() if one.about else None for one in made]
    config = _folder.claim(out, spec, mesh and mesh.size, record, about)
    if first():
        together("claimed")
    order = Order(spec)
    return order, Folder(out, config, order)


def _mesh(mesh: Mesh | None, say: Callable[[str], None]) -> Mesh:
    if mesh is not None:
        axis_of(mesh)
        return mesh_of(list(mesh.devices.flat))
    devices = jax.devices()
    alone = jax.process_count() == 1 and jax.local_device_count() == 1
    if alone and devices[0].platform == "cpu" and (n := cores()) > 1:
        say(
            f"one CPU device on {n} cores: a sweep is faster with one for each, "
            f'jax.config.update("jax_num_cpu_devices", {n}) before JAX is used'
        )
    return mesh_of(devices)


class _Sweep:
    """What `run` has set up, and the loops over groups and units."""

    def __init__(self, order: Order, folder: Folder, made, mesh, lanes, progress):
        self.order, self.spec, self.folder = order, order.spec, folder
        self.made, self.mesh, self.lanes, self.progress = made, mesh, lanes, progress
        self.say = telling(progress)
        self.programs: dict[int, Program] = {}
        self.mending: list[dict[str, Any]] | None = None  # rows of a group made again
        self.mended = False
        self.rows: list[dict[str, Any]] = []
        self.last: dict[int, dict[str, Any]] = {}  # of each configuration its last row
        self.standing = Standing(order)
        self.saved_at = time.monotonic()
        self.total = order.total()

    def go(self) -> Result:
        """Each group in order: as its rows say, on from where it was, or anew."""
        saved, lanes = self._resume()
        found = sorted(self.folder.rows.found)
        done = sum({config: at for _, config, at in found}.values())
        self.progress.begun(Start(done, self.total, None, self.folder.out))
        try:
            return self._all(saved, lanes)
        finally:
            self.progress.ended()

    def _all(self, saved: Unit, lanes: Any) -> Result:
        size = lambda choice: self._program(choice).size
        for unit, rows in self.order.units(self.standing.scores, size):
            if unit[1:4] < saved[1:4]:
                found = self.folder.rows.of(unit.rung, rows)
                if found:
                    self._add(found)
                else:
                    self._again(unit, rows)
            elif unit[1:4] == saved[1:4] and lanes is not None:
                self._continue(saved, unit, rows, lanes)
            else:
                self._group(unit, rows, None)
        return self._finish()

    def _resume(self) -> tuple[Unit, Any]:
        """Where to go on, and the lanes of the group that was running, if one was."""
        saved = self.folder.now()
        unit = saved or Unit(0, 0, 0, 0, 0)
        lanes = self._running(unit) if unit.step else None
        self.folder.rows.resume(unit.number, self.say)
        if saved is not None:
            self.progress.message(
                f"continues after {len(self.folder.rows.found):,} evaluations"
            )
        return unit, lanes

    def _running(self, unit: Unit) -> Any:
        made = self._program(unit.choice)
        rows = self.spec.choices[unit.choice][1][:1] * made.size
        config = configs(self.spec.numbers, rows, self.mesh)
        return self.folder.running(jax.eval_shape(made.begin, config))

    def _continue(self, saved: Unit, unit: Unit, rows: list[int], lanes: Any) -> None:
        """The group that was running; from its beginning where rows of it are missing."""
        found = self.folder.rows.of(saved.rung, rows, saved.step)
        if found:
            self._add(found)
            self._group(saved, rows, lanes)
        else:
            self._say_again(rows)
            self._group(unit, rows, None)

    def _again(self, unit: Unit, rows: list[int]) -> None:
        """A group that had ended and whose rows are missing; what was saved stays."""
        self._say_again(rows)
        self.mending = []
        self._group(unit, rows, None)
        self.folder.rows.append(self.mending)
        self.mending = None

    def _say_again(self, rows: list[int]) -> None:
        self.mended = True
        some = ", ".join(map(str, rows[:10])) + (", …" if len(rows) > 10 else "")
        self.say(f"rows are missing: trains settings {some} again")

    def _finish(self) -> Result:
        if self.mended:
            self.folder.rows.write(self.rows)
        columns = _results.columns_of(self.spec.space)
        table = _results.only_told(_results.table_of(columns, self.rows))
        best = self.standing.found(columns, self.folder.best)
        self.folder.write(table, best)
        together("finished")
        return Result(table, best, self.folder.config["layouts_shown"])

    # Programs

    def _program(self, choice: int) -> Program:
        if choice not in self.programs:
            known = self.folder.lanes_of(choice)
            layout, made = self._laid_out(choice, known)
            self.programs[choice] = made
            if known is None:
                self._note(choice, layout)
        return self.programs[choice]

    def _laid_out(self, choice: int, known: int | None) -> tuple[Layout, Program]:
        """As it was begun, as it was asked for, or as is fastest."""
        training = self.made[choice]
        lanes = self.lanes if known is None else known
        if lanes is None and jax.process_count() > 1:
            lanes = 1  # processes must not choose differently
        if lanes is not None:
            layout = Layout(lanes, self.mesh.size, {})
            return layout, program(training, lanes, self.mesh)
        rows = self.spec.choices[choice][1]
        return layouts.measured(training, self.spec.numbers, rows, self.mesh)

    def _note(self, choice: int, layout: Layout) -> None:
        shown = _results.layout_shown(self.spec.choices[choice][0], layout)
        self.progress.message(shown)
        self.folder.note_layout(choice, layout, shown)

    # One group

    def _group(self, unit: Unit, rows: list[int], begun: Any) -> None:
        """Trains a group to the end of the rung, and saves what later rungs need."""
        made = self._program(unit.choice)
        padded = (rows + rows[:1] * made.size)[: made.size]
        config = configs(self.spec.numbers, padded, self.mesh)
        group = Group(self.made[unit.choice], made, config, self.spec.every)
        if begun is not None:
            lanes = _group.placed(group, begun)
        else:
            lanes = self._entering(unit, group, padded)
        until = self.order.until(unit.rung, unit.choice)
        while unit.step < until:
            unit, lanes = self._unit(unit, rows, group, lanes, until)
            late = time.monotonic() - self.saved_at >= self.spec.seconds
            stop, due = anyone(self.progress.interrupted(), late)
            if unit.step < until and (stop or due) and self.mending is None:
                self._save(unit, lanes)
            if stop:
                if unit.step == until and self.mending is None:
                    self._leave(unit, rows, lanes)
                raise KeyboardInterrupt
        self._leave(unit, rows, lanes)

    def _unit(self, unit: Unit, rows, group: Group, lanes: Lane, until: int):
        """Trains to the next evaluation, and writes it down: `(next unit, lanes)`."""
        n = self.order.length(unit.step, until)
        lanes, means = _group.train(group, lanes, unit.step, n)
        unit = unit._replace(number=unit.number + 1, step=unit.step + n)
        found, diverged = _group.evaluated(group, lanes, means, len(rows))
        last = unit.step == until
        lines = _rows.lines(
            unit.number, unit.rung, unit.step, last, rows, found, diverged
        )
        self._add(lines)
        if self.mending is None:
            self.folder.rows.append(lines)
        else:  # not before its files are there, too
            self.mending.extend(lines)
        self._tell(unit)
        return unit, lanes

    def _entering(self, unit: Unit, group: Group, rows: list[int]) -> Lane:
        """The lanes as the rung before left them, or new ones."""
        if unit.rung == 0:
            return group.program.begin(group.config)
        together("left")  # the first process writes what all read
        kept = [self.folder.kept(unit.rung - 1, i) for i in rows]
        (gone,) = anyone(not all(path.exists() for path in kept))
        if gone:  # the sweep had ended
            return _group.from_the_first(group, unit.step)
        like = _group.like_of(group)
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), like)
        each = [_store.load(path, one)[0] for path in kept]
        return _group.placed(group, _group.stacked(each))

    def _leave(self, unit: Unit, rows: list[int], lanes: Lane) -> None:
        """What is needed of a group that has ended: for the next rung, or its best."""
        last, host = unit.rung == len(self.spec.rungs) - 1, _group.on_host(lanes)
        wanted = set(self.standing.best if last else rows)
        for j, i in enumerate(rows):
            if i in wanted:
                self.folder.leave(unit.rung, i, _group.left(host, j, last))
        if self.mending is None:
            self._save(unit._replace(group=unit.group + 1, step=0), None)

    # What is written down

    def _add(self, lines: list[dict[str, Any]]) -> None:
        for row in lines:
            self.rows.append(row)
            self.last[row["config"]] = row
            self.standing.add(row)

    def _save(self, unit: Unit, lanes: Lane | None) -> None:
        self.folder.save_now(unit, None if lanes is None else _group.on_host(lanes))
        self.saved_at = time.monotonic()

    def _tell(self, unit: Unit) -> None:
        now = {i: worth_of(self.spec.score, row) for i, row in self.last.items()}
        alive = sum(
            1
            for i in self.order.alive(unit.rung, self.standing.scores)
            if not np.isnan(now.get(i, 0))
        )
        fine = [(s, i) for i, s in now.items() if not np.isnan(s)]
        done = sum(row["at"] for row in self.last.values())
        best = min(fine) if fine else None
        shown = None if best is None else (self.standing.score(best[0]), best[1])
        self.progress.advanced(Status(done, self.total, alive, shown))
        told = {} if shown is None else dict(best=shown[0])
        self.progress.measured(done, told | dict(alive=alive))
