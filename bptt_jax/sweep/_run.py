"""The loop of a sweep: group after group of its configurations, and the way back."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bptt_jax import _files
from bptt_jax import _pytrees as trees
from bptt_jax._factory import is_whole, plain
from bptt_jax._processes import (
    anyone,
    axis_of,
    cores,
    first,
    gathered,
    telling,
    together,
)
from bptt_jax._score import score_of
from bptt_jax.progress import Progress, Start, Status, or_shown
from bptt_jax.sweep import _folder, _halving, _order, _results, _store
from bptt_jax.sweep import _layout as layouts
from bptt_jax.sweep._folder import Folder
from bptt_jax.sweep._halving import Halving
from bptt_jax.sweep._layout import Layout
from bptt_jax.sweep._order import Order, Spec, Unit
from bptt_jax.sweep._program import (
    Program,
    add,
    configs,
    count,
    mesh_of,
    program,
    refuse_early,
    spread,
)
from bptt_jax.sweep._results import Best, Result
from bptt_jax.sweep._space import Space, groups
from bptt_jax.sweep._training import Lane, Training, as_training, over_real


def run(
    training: Training | Callable,
    space: Space,
    *,
    steps: int | Callable[..., int],
    out: pathlib.Path | str,
    evaluate_every: int | None = None,
    halving: Halving | None = None,
    mesh: Mesh | None = None,
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
    mesh, lanes = _mesh(mesh, say), plain(lanes)
    made = _trainings(training, spec)  # refused before the folder is touched
    with _files.locked(out, say):
        order, folder = _claimed(out, spec, mesh, record or {})
        return _Sweep(order, folder, made, mesh, lanes, progress).go()


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
    out: pathlib.Path, spec: Spec, mesh: Mesh, record: dict[str, Any]
) -> tuple[Order, Folder]:
    """The sweep's folder, found or made by the first process."""
    if not first():
        together("claimed")  # the others find it there
    config = _folder.claim(out, spec, mesh.size, record)
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
        self.scores: list[dict[int, float]] = [{} for _ in self.spec.rungs]
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
        for unit, rows in self.order.units(
            self.scores, lambda c: self._program(c).size
        ):
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
        table = _results.table_of(columns, self.rows)
        fine = {i: s for i, s in self.scores[-1].items() if not np.isnan(s)}
        order = sorted(_halving.best(fine, self.spec.keep), key=lambda i: (fine[i], i))
        best = [
            Best(
                i,
                self._score(fine[i]),
                {k: v[i] for k, v in columns.items()},
                self.folder.best(i),
            )
            for i in order
        ]
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
        values = self.spec.choices[choice][0]
        named = ", ".join(f"{k} {_results.name_of(v)}" for k, v in values.items())
        shown = f"{named}: {layout}" if named else str(layout)
        self.progress.message(shown)
        self.folder.note_layout(choice, layout, shown)

    # One group

    def _group(self, unit: Unit, rows: list[int], begun: Any) -> None:
        """Trains a group to the end of the rung, and saves what later rungs need."""
        made = self._program(unit.choice)
        padded = (rows + rows[:1] * made.size)[: made.size]
        config = configs(self.spec.numbers, padded, self.mesh)
        if begun is not None:
            lanes = self._placed(made, config, begun)
        else:
            lanes = self._entering(unit, made, config, padded)
        until = self.order.until(unit.rung, unit.choice)
        while unit.step < until:
            unit, lanes = self._unit(unit, rows, made, config, lanes, until)
            late = time.monotonic() - self.saved_at >= self.spec.seconds
            stop, due = anyone(self.progress.interrupted(), late)
            if unit.step < until and (stop or due) and self.mending is None:
                self._save(unit, lanes)
            if stop:
                if unit.step == until and self.mending is None:
                    self._leave(unit, rows, lanes)
                raise KeyboardInterrupt
        self._leave(unit, rows, lanes)

    def _unit(self, unit: Unit, rows, made: Program, config, lanes: Lane, until: int):
        """Trains to the next evaluation, and writes it down: `(next unit, lanes)`."""
        n = self.order.length(unit.step, until)
        training = self.made[unit.choice]
        lanes, means = self._train(training, made, config, lanes, unit.step, n)
        unit = unit._replace(number=unit.number + 1, step=unit.step + n)
        measured = made.measure(config, lanes, training.held_out)
        means, measured, diverged = gathered((means, measured, lanes.diverged_at))
        means = over_real(means)
        found = [
            _at(means, j) | training.figures(_at(measured, j)) for j in range(len(rows))
        ]
        self._write_rows(unit, rows, found, diverged, unit.step == until)
        self._tell(unit)
        return unit, lanes

    def _train(self, training, made, config, lanes, first: int, n: int):
        """n steps, at most `PIECE` a call."""
        sums: dict[str, Any] = {}
        for at in range(0, n, PIECE):
            some = min(PIECE, n - at)
            items = _padded(
                training.read(first + at, some), min(PIECE, self.spec.every)
            )
            lanes, means = made.advance(config, lanes, items, count(some))
            if n <= PIECE:
                return lanes, means
            share = np.float32(some / n)
            sums = add(sums or dict.fromkeys(means, np.float32(0)), means, share)
        return lanes, sums

    def _entering(self, unit: Unit, made: Program, config, rows: list[int]) -> Lane:
        """The lanes as the rung before left them, or new ones."""
        if unit.rung == 0:
            return made.begin(config)
        together("left")  # the first process writes what all read
        kept = [self.folder.kept(unit.rung - 1, i) for i in rows]
        (gone,) = anyone(not all(path.exists() for path in kept))
        if gone:  # the sweep had ended
            return self._from_step_0(unit, made, config)
        like = jax.eval_shape(made.begin, config)
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), like)
        each = [_store.load(path, one)[0] for path in kept]
        return self._placed(made, config, jax.tree.map(lambda *a: np.stack(a), *each))

    def _from_step_0(self, unit: Unit, made: Program, config) -> Lane:
        """What the rungs before would have left: a lane's numbers are its own."""
        lanes, step = made.begin(config), 0
        while step < unit.step:
            n = self.order.length(step, unit.step)
            training = self.made[unit.choice]
            lanes, _ = self._train(training, made, config, lanes, step, n)
            step += n
        return lanes

    def _placed(self, made: Program, config, host: Any) -> Lane:
        like = jax.eval_shape(made.begin, config)
        arrays = jax.tree.map(lambda a: spread(np.asarray(a), self.mesh), host)
        return _store.as_like(like, arrays)

    def _leave(self, unit: Unit, rows: list[int], lanes: Lane) -> None:
        """What is needed of a group that has ended: for the next rung, or its best."""
        last, host = unit.rung == len(self.spec.rungs) - 1, _on_host(lanes)
        wanted = self._best_now() if last else set(rows)
        for j, i in enumerate(rows):
            if i in wanted:
                one = jax.tree.map(lambda a, j=j: a[j], host)
                path = self.folder.best(i) if last else self.folder.kept(unit.rung, i)
                self.folder.save(path, _params(one.state) if last else one)
        if self.mending is None:
            self._save(unit._replace(group=unit.group + 1, step=0), None)

    def _best_now(self) -> set[int]:
        """Whose parameters are kept, of those that have ended the last rung."""
        scores = self.scores[-1]
        best = _halving.best(scores, self.spec.keep)
        return {i for i in best if not np.isnan(scores[i])}

    # What is written down

    def _write_rows(self, unit, rows, found, diverged, last: bool) -> None:
        lines = [
            dict(
                step=unit.number, config=i, rung=unit.rung, at=unit.step, last=last,
                metrics={k: _number(a) for k, a in found[j].items()},
                diverged_at=int(diverged[j]),
            )
            for j, i in enumerate(rows)
        ]  # fmt: skip
        self._add(lines)
        if self.mending is None:
            self.folder.rows.append(lines)
        else:  # not before its files are there, too
            self.mending.extend(lines)

    def _add(self, lines: list[dict[str, Any]]) -> None:
        for row in lines:
            self.rows.append(row)
            self.last[row["config"]] = row
            if row["last"]:
                self.scores[row["rung"]][row["config"]] = self._worth(row)

    def _worth(self, row: dict[str, Any]) -> float:
        """The score of a row, the less the better; NaN: it has none."""
        score = self.spec.score
        value = _results.score(row, score.name)
        return value if np.isnan(value) else score.worth(value)

    def _score(self, worth: float) -> float:
        return -worth if self.spec.score.maximise else worth

    def _save(self, unit: Unit, lanes: Lane | None) -> None:
        self.folder.save_now(unit, None if lanes is None else _on_host(lanes))
        self.saved_at = time.monotonic()

    def _tell(self, unit: Unit) -> None:
        now = {i: self._worth(row) for i, row in self.last.items()}
        alive = sum(
            1
            for i in self.order.alive(unit.rung, self.scores)
            if not np.isnan(now.get(i, 0))
        )
        fine = [(s, i) for i, s in now.items() if not np.isnan(s)]
        done = sum(row["at"] for row in self.last.values())
        best = min(fine) if fine else None
        shown = None if best is None else (self._score(best[0]), best[1])
        self.progress.advanced(Status(done, self.total, alive, shown))
        told = {} if shown is None else dict(best=shown[0])
        self.progress.measured(done, told | dict(alive=alive))


PIECE = 64
"""Steps in one call of a program: often enough to be told, seldom enough to be free."""


def _padded(items: Any, n: int) -> Any:
    """Items `[n, ...]`, the first again in the place of those that are not needed."""
    if n == trees.length(items):
        return items
    return jax.tree.map(
        lambda a: np.concatenate([a, np.repeat(a[:1], n - len(a), 0)]), items
    )


def _on_host(lanes: Lane) -> Any:
    return gathered(_store.plain(lanes))


def _params(state: Any) -> Any:
    state = getattr(state, "state", state)  # of a training given as one function
    return getattr(state, "params", state)


def _at(tree: Any, j: int) -> Any:
    """Of the j-th configuration of a group, numbers of Python."""
    return jax.tree.map(lambda a: np.asarray(a)[j].item(), tree)


def _number(a: Any) -> float | None:
    """As JSON has it: there is no NaN."""
    return float(a) if np.isfinite(a) else None
