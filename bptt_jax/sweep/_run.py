"""The loop of a sweep: groups of configurations, rung after rung, and the way back.

Work is cut into units: a group of configurations from one evaluation to the next. Units
have a fixed order and depend on nothing but what is saved, so a sweep that was stopped and
goes on writes the table of one that was not.
"""

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from bptt_jax import _files
from bptt_jax import _pytrees as trees
from bptt_jax._factory import is_whole, plain
from bptt_jax._processes import anyone, cores, first, gathered, telling, together
from bptt_jax.sweep import _halving, _results, _rows, _store
from bptt_jax.sweep import _layout as layouts
from bptt_jax.sweep._halving import Halving, Rung
from bptt_jax.sweep._layout import Layout
from bptt_jax.sweep._program import (
    Program,
    add,
    column,
    configs,
    count,
    mesh_of,
    program,
    refuse_early,
    spread,
)
from bptt_jax.sweep._results import Best, Result
from bptt_jax.sweep._space import Space, groups
from bptt_jax.sweep._training import Lane, Training, lift, over_real


class Progress(NamedTuple):
    """What a sweep tells while it runs, each a function; by default nothing.

    message: `(text)`; without it what must be known is a warning.
    advanced: `(Status)`, after each unit of work.
    interrupted: `() -> bool`, asked after each unit; True: save, and raise
        `KeyboardInterrupt`.
    """

    message: Callable = lambda text: None
    advanced: Callable = lambda status: None
    interrupted: Callable = lambda: False


class Status(NamedTuple):
    """How far a sweep is.

    done, total: steps of single configurations.
    alive: configurations that have neither diverged nor been given up.
    best: the lowest score so far, and whose it is; None: nobody has one.
    """

    done: int
    total: int
    alive: int
    best: tuple[float, int] | None


class _Plan(NamedTuple):
    """What makes a sweep what it is; see `run`."""

    space: Space
    numbers: dict[str, np.ndarray]  # its columns that are arguments of programs
    steps: dict[int, int]  # of each static choice
    every: int
    rungs: list[Rung]
    keep: int
    seconds: float


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
    progress: Progress = Progress(),
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
      progress: what is told meanwhile.

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
    out = pathlib.Path(out)
    choices = groups(space)
    plan = _plan(
        space, choices, steps, evaluate_every, halving, keep, checkpoint_seconds
    )
    if lanes is not None and (not is_whole(lanes) or lanes < 1):
        raise ValueError(f"lanes: expected at least 1, or None, got {lanes!r}")
    say = telling(progress)
    mesh, lanes = _mesh(mesh, say), plain(lanes)
    made = [
        lift(training(**choice) if space.static else training) for choice, _ in choices
    ]
    for one in made:  # before the folder is touched
        refuse_early(one, plan.numbers)
    with _files.locked(out, say):
        if not first():
            together("claimed")  # by the first process; the others find it there
        there = _claim(out, plan, mesh, record or {})
        if first():
            together("claimed")
        return _Sweep(plan, choices, made, mesh, lanes, out, there, progress).go()


def _plan(space, choices, steps, every, halving, keep, seconds) -> _Plan:
    if not isinstance(space, Space):
        raise TypeError(f"space: expected a sweep.Space, got {type(space).__name__}")
    numbers = {
        name: column(name, values)
        for name, values in space.columns.items()
        if name not in space.static
    }
    each: dict[int, Any] = {
        c: steps(**choice) if callable(steps) else steps
        for c, (choice, _) in enumerate(choices)
    }
    for name, value in (
        *(("steps", n) for n in each.values()),
        ("evaluate_every", every),
        ("keep", keep),
    ):
        if value is None and name == "evaluate_every":
            continue
        if not is_whole(value) or value < 1:
            raise ValueError(
                f"{name}: expected a whole number of at least 1, got {value!r}"
            )
    each = {c: plain(n) for c, n in each.items()}
    every, keep = plain((every, keep))
    every = every or max(1, max(each.values()) // 20)
    rungs = _halving.rungs(halving, space.size)
    for n in each.values():
        at = [_halving.until(rung, n) for rung in rungs]
        if len(set(at)) < len(at):
            raise ValueError(
                f"halving: {len(at)} rungs end at steps {', '.join(map(str, at))}, two at "
                "one; expected more steps or fewer rungs"
            )
    return _Plan(space, numbers, each, every, rungs, keep, seconds)


def _mesh(mesh: Mesh | None, say: Callable[[str], None]) -> Mesh:
    if mesh is not None:
        return mesh_of(list(mesh.devices.flat))
    devices = jax.devices()
    alone = jax.process_count() == 1 and jax.local_device_count() == 1
    if alone and devices[0].platform == "cpu" and (n := cores()) > 1:
        say(
            f"one CPU device on {n} cores: a sweep is faster with one for each, "
            f'jax.config.update("jax_num_cpu_devices", {n}) before JAX is used'
        )
    return mesh_of(devices)


def _claim(out: pathlib.Path, plan: _Plan, mesh: Mesh, record: dict) -> dict[str, Any]:
    """The folder's `sweep.json`, which is made where there is none."""
    what = json.loads(
        json.dumps(
            dict(
                columns=_results.columns_of(plan.space),
                static=sorted(plan.space.static),
                steps=list(plan.steps.values()),
                evaluate_every=plan.every,
                rungs=plan.rungs,
                keep=plan.keep,
            )
        )
    )
    if (out / "sweep.json").exists():
        there = _results.read_config(out)
        changed = [k for k in what if there["sweep"].get(k) != what[k]]
        if changed:
            raise ValueError(
                f"out: {out} holds another sweep ({', '.join(changed)} differ); "
                "choose another folder"
            )
        if there["devices"] != mesh.size:
            raise ValueError(
                f"out: {out} was begun on {there['devices']} devices, now there are "
                f"{mesh.size}; go on with as many"
            )
        return there
    if out.exists() and not all(map(_files.is_left_over, out.iterdir())):
        raise ValueError(f"out: {out} is not empty and holds no sweep")
    there = dict(
        sweep=what, devices=mesh.size, layouts={}, layouts_shown=[], record=record
    )
    _files.replace_json(out / "sweep.json", there)
    return there


class _Unit(NamedTuple):
    """Where a sweep is: the next unit of work. step: of the group's configurations."""

    number: int
    rung: int
    choice: int
    group: int
    step: int


class _Sweep:
    """What `run` has set up, and the loops over rungs, choices, groups and units."""

    def __init__(self, plan, choices, made, mesh, lanes, out, there, progress):
        self.plan, self.choices, self.made, self.mesh = plan, choices, made, mesh
        self.lanes, self.out, self.there, self.progress = lanes, out, there, progress
        self.writes, self.say = first(), telling(progress)
        self.choice_of = {i: c for c, (_, rows) in enumerate(choices) for i in rows}
        self.due = [
            [self._ends(rung, choice) for choice in range(len(choices))]
            for rung in range(len(plan.rungs))
        ]
        self.programs: dict[int, Program] = {}
        self.mending: list[dict[str, Any]] | None = None  # rows of a group made again
        self.mended = False
        self.rows: list[dict[str, Any]] = []
        self.last: dict[int, dict[str, Any]] = {}  # of each configuration its last row
        self.ended: list[dict[int, float]] = [{} for _ in plan.rungs]  # their scores
        self.saved_at = time.monotonic()
        self.total = self._total()

    def go(self) -> Result:
        """Each group in order: as its rows say, on from where it was, or anew."""
        saved, lanes, number = *self._resume(), 0
        for rung in range(len(self.plan.rungs)):
            for choice in range(len(self.choices)):
                for group, rows in enumerate(self._groups(rung, choice)):
                    here = rung, choice, group
                    unit = _Unit(number, *here, self._before(rung, choice))
                    number += len(self.due[rung][choice])
                    if here < saved[1:4]:
                        there = self.file.of(rung, rows)
                        if there:
                            self._add(there)
                        else:
                            self._again(unit, rows)
                    elif here == saved[1:4] and lanes is not None:
                        self._continue(saved, unit, rows, lanes)
                    else:
                        self._group(unit, rows, None)
        return self._finish()

    def _continue(self, saved: _Unit, unit: _Unit, rows: list[int], lanes: Any) -> None:
        """The group that was running; from its beginning where rows of it are missing."""
        there = self.file.of(saved.rung, rows, saved.step)
        if there:
            self._add(there)
            self._group(saved, rows, lanes)
        else:
            self._say_again(rows)
            self._group(unit, rows, None)

    def _again(self, unit: _Unit, rows: list[int]) -> None:
        """A group that had ended and whose rows are missing; what was saved stays."""
        self._say_again(rows)
        self.mending = []
        self._group(unit, rows, None)
        self.file.append(self.mending)
        self.mending = None

    def _say_again(self, rows: list[int]) -> None:
        self.mended = True
        some = ", ".join(map(str, rows[:10])) + (", …" if len(rows) > 10 else "")
        self.say(f"rows are missing: trains settings {some} again")

    def _ends(self, rung: int, choice: int) -> list[int]:
        """The steps at which a rung evaluates."""
        before, until = self._before(rung, choice), self._until(rung, choice)
        every = self.plan.every
        return [*range(before // every * every + every, until, every), until]

    def _ends_of(self, rung: int, config: int) -> list[int]:
        if not (0 <= rung < len(self.due) and config in self.choice_of):
            return []
        return self.due[rung][self.choice_of[config]]

    def _groups(self, rung: int, choice: int) -> list[list[int]]:
        """The rows of a choice that the rung trains, group by group."""
        alive = set(self._alive(rung))
        rows = [i for i in self.choices[choice][1] if i in alive]
        if not rows:
            return []
        size = self._program(choice).size
        return [rows[at : at + size] for at in range(0, len(rows), size)]

    def _alive(self, rung: int) -> list[int]:
        if rung == 0:
            return list(range(self.plan.space.size))
        return _halving.best(self.ended[rung - 1], self.plan.rungs[rung].configs)

    def _until(self, rung: int, choice: int) -> int:
        return _halving.until(self.plan.rungs[rung], self.plan.steps[choice])

    def _before(self, rung: int, choice: int) -> int:
        return self._until(rung - 1, choice) if rung else 0

    def _total(self) -> int:
        """Steps of single configurations, as if all choices took the most steps."""
        shares = [0.0, *(r.share for r in self.plan.rungs)]
        n = sum(
            (b - a) * r.configs
            for a, b, r in zip(shares, shares[1:], self.plan.rungs, strict=False)
        )
        return round(n * max(self.plan.steps.values()))

    def _program(self, choice: int) -> Program:
        if choice in self.programs:
            return self.programs[choice]
        values, rows = self.choices[choice]
        known = self.there["layouts"].get(str(choice), self.lanes)
        if known is not None:
            made = program(self.made[choice], known, self.mesh)
            layout = Layout(known, self.mesh.size, {})
        elif jax.process_count() > 1:  # processes must not choose differently
            made, layout = (
                program(self.made[choice], 1, self.mesh),
                Layout(1, self.mesh.size, {}),
            )
        else:
            training, columns = self.made[choice], self.plan.numbers
            layout, made = layouts.measured(training, columns, rows, self.mesh)
        self.programs[choice] = made
        if str(choice) not in self.there["layouts"]:
            named = ", ".join(f"{k} {_results.name_of(v)}" for k, v in values.items())
            shown = f"{named}: {layout}" if named else str(layout)
            self.there["layouts"][str(choice)] = layout.lanes
            self.there["layouts_shown"].append(shown)
            self.progress.message(shown)
            if self.writes:
                _files.replace_json(self.out / "sweep.json", self.there)
        return made

    # One group

    def _group(self, unit: _Unit, rows: list[int], begun: Any) -> None:
        """Trains a group to the end of the rung, and saves what later rungs need."""
        training, made = self.made[unit.choice], self._program(unit.choice)
        padded = (rows + rows[:1] * made.size)[: made.size]
        config = configs(self.plan.numbers, padded, self.mesh)
        if begun is not None:
            lanes = self._placed(made, config, begun)
        else:
            lanes = self._entering(unit, made, config, padded)
        until = self._until(unit.rung, unit.choice)
        while unit.step < until:
            n = min(self.plan.every - unit.step % self.plan.every, until - unit.step)
            lanes, means = self._train(training, made, config, lanes, unit.step, n)
            unit = unit._replace(number=unit.number + 1, step=unit.step + n)
            measured = made.measure(config, lanes, training.held_out)
            means, measured, diverged = gathered((means, measured, lanes.diverged_at))
            found = over_real(means) | measured
            self._write_rows(unit, rows, found, diverged, unit.step == until)
            self._tell(unit)
            late = time.monotonic() - self.saved_at >= self.plan.seconds
            stop, due = anyone(self.progress.interrupted(), late)
            if unit.step < until and (stop or due) and self.mending is None:
                self._save(unit, lanes)
            if stop:
                if unit.step == until and self.mending is None:
                    self._leave(unit, rows, lanes)
                raise KeyboardInterrupt
        self._leave(unit, rows, lanes)

    def _train(self, training, made, config, lanes, first: int, n: int):
        """n steps, at most `PIECE` a call."""
        sums: dict[str, Any] = {}
        for at in range(0, n, PIECE):
            some = min(PIECE, n - at)
            items = _padded(
                training.read(first + at, some), min(PIECE, self.plan.every)
            )
            lanes, means = made.advance(config, lanes, items, count(some))
            if n <= PIECE:
                return lanes, means
            share = np.float32(some / n)
            sums = add(sums or dict.fromkeys(means, np.float32(0)), means, share)
        return lanes, sums

    def _entering(self, unit: _Unit, made: Program, config, rows: list[int]) -> Lane:
        """The lanes as the rung before left them, or new ones."""
        if unit.rung == 0:
            return made.begin(config)
        together("left")  # the first process writes what all read
        kept = [self._kept(unit.rung - 1, i) for i in rows]
        (gone,) = anyone(not all(path.exists() for path in kept))
        if gone:  # the sweep had ended
            return self._from_step_0(unit, made, config)
        like = jax.eval_shape(made.begin, config)
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), like)
        each = [_store.load(path, one)[0] for path in kept]
        return self._placed(made, config, jax.tree.map(lambda *a: np.stack(a), *each))

    def _from_step_0(self, unit: _Unit, made: Program, config) -> Lane:
        """What the rungs before would have left: a lane's numbers are its own."""
        lanes, step = made.begin(config), 0
        while step < unit.step:
            n = min(self.plan.every - step % self.plan.every, unit.step - step)
            training = self.made[unit.choice]
            lanes, _ = self._train(training, made, config, lanes, step, n)
            step += n
        return lanes

    def _placed(self, made: Program, config, host: Any) -> Lane:
        like = jax.eval_shape(made.begin, config)
        arrays = jax.tree.map(lambda a: spread(np.asarray(a), self.mesh), host)
        return _store.as_like(like, arrays)

    def _kept(self, rung: int, row: int) -> pathlib.Path:
        return self.out / "lanes" / f"rung-{rung}" / f"config-{row}.safetensors"

    def _leave(self, unit: _Unit, rows: list[int], lanes: Lane) -> None:
        """What is needed of a group that has ended: for the next rung, or its best."""
        last = unit.rung == len(self.plan.rungs) - 1
        ended = self.ended[unit.rung]
        wanted = (
            set(_halving.best(ended, self.plan.keep)) if last else set(rows)
        ) & set(rows)
        wanted = {i for i in wanted if not np.isnan(ended[i]) or not last}
        host = _on_host(lanes)
        if self.writes:
            for j, i in enumerate(rows):
                if i in wanted:
                    one = jax.tree.map(lambda a, j=j: a[j], host)
                    path = self._best(i) if last else self._kept(unit.rung, i)
                    _store.save(path, _params(one.state) if last else one)
        if self.mending is None:
            self._save(unit._replace(group=unit.group + 1, step=0), None)

    def _best(self, row: int) -> pathlib.Path:
        return self.out / "best" / f"config-{row}.safetensors"

    # What is written down

    def _write_rows(self, unit, rows, found, diverged, last: bool) -> None:
        lines = [
            dict(
                step=unit.number, config=i, rung=unit.rung, at=unit.step, last=last,
                metrics={k: _number(a[j]) for k, a in found.items()},
                diverged_at=int(diverged[j]),
            )
            for j, i in enumerate(rows)
        ]  # fmt: skip
        self._add(lines)
        if self.mending is None:
            self.file.append(lines)
        else:  # not before its files are there, too
            self.mending.extend(lines)

    def _add(self, lines: list[dict[str, Any]]) -> None:
        for row in lines:
            self.rows.append(row)
            self.last[row["config"]] = row
            if row["last"]:
                self.ended[row["rung"]][row["config"]] = _results.score(row)

    def _save(self, unit: _Unit, lanes: Lane | None) -> None:
        host = np.zeros(1) if lanes is None else _on_host(lanes)
        if self.writes:
            _store.save(self.out / "now.safetensors", host, **unit._asdict())
        self.saved_at = time.monotonic()

    def _resume(self) -> tuple[_Unit, Any]:
        """Where to go on, and the lanes of the group that was running, if one was."""
        self.file = _rows.Rows(self.out / "rows.jsonl", self._ends_of)
        path = self.out / "now.safetensors"
        unit, lanes = _Unit(0, 0, 0, 0, 0), None
        if path.exists():
            about = _store.record(path)
            unit = _Unit(*(int(about[name]) for name in _Unit._fields))
            if unit.step:
                lanes = self._running(unit, path)
        self.file.resume(unit.number, self.say)
        if path.exists():
            self.progress.message(
                f"continues after {len(self.file.found):,} evaluations"
            )
        return unit, lanes

    def _running(self, unit: _Unit, path: pathlib.Path) -> Any:
        made = self._program(unit.choice)
        rows = self.choices[unit.choice][1][:1] * made.size
        config = configs(self.plan.numbers, rows, self.mesh)
        return _store.load(path, jax.eval_shape(made.begin, config))[0]

    def _tell(self, unit: _Unit) -> None:
        now = {i: _results.score(row) for i, row in self.last.items()}
        alive = sum(1 for i in self._alive(unit.rung) if not np.isnan(now.get(i, 0)))
        fine = [(s, i) for i, s in now.items() if not np.isnan(s)]
        done = sum(row["at"] for row in self.last.values())
        self.progress.advanced(
            Status(done, self.total, alive, min(fine) if fine else None)
        )

    def _finish(self) -> Result:
        if self.mended:
            self.file.write(self.rows)
        columns = _results.columns_of(self.plan.space)
        table = _results.table_of(columns, self.rows)
        fine = {i: s for i, s in self.ended[-1].items() if not np.isnan(s)}
        order = sorted(_halving.best(fine, self.plan.keep), key=lambda i: (fine[i], i))
        best = [
            Best(i, fine[i], {k: v[i] for k, v in columns.items()}, self._best(i))
            for i in order
        ]
        if self.writes:
            named = [b._asdict() | {"path": f"best/{b.path.name}"} for b in best]
            _files.replace_json(self.out / "best.json", named)
            _results.write(self.out / "results.parquet", table)
            self._tidy(set(order))
        together("finished")
        return Result(table, best, self.there["layouts_shown"])

    def _tidy(self, kept: set[int]) -> None:
        """Takes away what only a sweep that has not ended needs."""
        stale = list((self.out / "lanes").rglob("*.safetensors"))
        for path in (self.out / "best").glob("config-*.safetensors"):
            if int(path.stem.removeprefix("config-")) not in kept:
                stale.append(path)
        for path in stale:
            path.unlink()


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


def _number(a: Any) -> float | None:
    """As JSON has it: there is no NaN."""
    return float(a) if np.isfinite(a) else None
