"""A sweep over an executor: groups as tasks of their own, and the client that keeps the table.

Each group runs on one device of some worker, and depends on no other of its rung. The client
submits a few more than run, writes what comes back, and holds no more than that in memory.
"""

import collections
import concurrent.futures
import hashlib
import math
import pathlib
import secrets
import shutil
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from bptt_jax import _files
from bptt_jax._processes import telling
from bptt_jax.progress import Progress, Start, Status
from bptt_jax.sweep import _executors, _results, _rows, _store, _training, _worker
from bptt_jax.sweep._folder import Folder
from bptt_jax.sweep._job import Ended, Failed, Job, Missing, Stopped, Unfit
from bptt_jax.sweep._layout import Layout
from bptt_jax.sweep._order import Order, Unit
from bptt_jax.sweep._results import Result
from bptt_jax.sweep._standing import Standing
from bptt_jax.sweep._training import Training

AHEAD = 2
"""Groups that are submitted for each that can run. Dask counts the death of a worker against
all that waited on it, so no more."""
AGAIN = 2
"""How often a group that was lost is submitted again before it is taken to be at fault.

Of those that were lost one is submitted at a time: who waited beside one that kills its
workers is lost with it, and without it not again."""
ALL_FAIL = 8
"""Configurations that fail while none has ended: then it is no configuration's fault."""
SMALL = 1 << 20
"""Bytes of a training that goes with each group; a larger one where it is missing."""
SECONDS = 0.5
"""Between two looks at who works, and whether somebody has interrupted."""


class Part(NamedTuple):
    """A group, or what is left of one. lost: how often it was; send: the training, too."""

    unit: Unit
    rows: list[int]
    lost: int = 0
    send: bool = False


class Tasks:
    """What `run` has set up, and the loop over what is submitted.

    Args:
      order, folder, made, progress: of the sweep.
      sent: what `pickled` gives of each of `made`.
      lanes: asked for, None: measured by a worker.
      executor: runs the groups.
    """

    def __init__(
        self, order: Order, folder: Folder, made: list[Training],
        sent: list[tuple[str, bytes]], lanes: int | None, executor: Any, progress: Progress,
    ):  # fmt: skip
        self.order, self.spec, self.folder = order, order.spec, folder
        self.lanes, self.executor, self.progress = lanes, executor, progress
        self.made, self.say = made, telling(progress)
        self.pickled = sent
        self.settings = _worker.settings()
        self.standing = Standing(order)
        self.running: dict[concurrent.futures.Future, Part] = {}
        self.again: collections.deque[Part] = collections.deque()
        self.suspects: collections.deque[Part] = collections.deque()  # that were lost
        self.marks: list[tuple[Part, str]] = []
        self.hardware: set[str] = set()
        self.work = folder.out.absolute() / "groups"
        self.token = self.work / f"client-{secrets.token_hex(8)}"
        self.places, self.looked = 0, -math.inf
        self.done = 0
        self.bad = [0] * len(self.spec.rungs)  # that have no score, of each
        self.now: tuple[float, int] | None = None  # the best so far

    def go(self) -> Result:
        """Each group that has not ended, rung after rung."""
        if said := _executors.limits(self.executor):
            self.progress.message(said)
        self._resume()
        total = self.order.total()
        self.progress.begun(Start(self.done, total, None, self.folder.out))
        try:
            self._make_token()
            for choice in range(len(self.made)):
                self._lay_out(choice)
            number = 0
            for rung in range(len(self.spec.rungs)):
                number = self._rung(rung, number)
        except (ConnectionError, KeyboardInterrupt):
            self._gather()
            raise
        finally:
            self._let_go()
            self.progress.ended()
        return self._finish()

    # Where it goes on

    def _resume(self) -> None:
        """What has ended, of what is written down; the rest is made again."""
        rows = self.folder.rows
        rows.resume(2**62, self.say)
        ended, before = {}, len(rows.found)
        for rung, config, _ in list(rows.found):
            if (rung, config) not in ended:
                ended[rung, config] = bool(rows.of(rung, [config]))
        rows.found = {k: row for k, row in rows.found.items() if ended[k[:2]]}
        for row in rows.found.values():
            self._note(row)
        if len(rows.found) < before:
            rows.write(rows.found.values())
        if before:
            self.progress.message(f"continues after {len(rows.found):,} evaluations")
        rows.found = {}  # the file has them

    def _make_token(self) -> None:
        """Workers that see it know that they are waited for; those of before are let go."""
        for path in self.work.glob("client-*"):
            path.unlink(missing_ok=True)
        _files.replace_text(self.token, "")

    def _gather(self) -> None:
        """What has ended and was not looked at yet."""
        for future in list(self.running):
            if future.done() and not future.cancelled() and not future.exception():
                if isinstance(found := future.result(), Ended):
                    self._write(self.running.pop(future), found)

    def _let_go(self) -> None:
        for future in self.running:
            future.cancel()
        self.token.unlink(missing_ok=True)

    # The layout

    def _lay_out(self, choice: int) -> None:
        """So many lanes on one device, once and for all."""
        if self.folder.lanes_of(choice) is not None:
            return
        layout = Layout(self.lanes, 1, {}) if self.lanes else self._measured(choice)
        values = self.spec.choices[choice][0]
        shown = _results.layout_shown(values, layout)
        self.progress.message(shown)
        self.folder.note_layout(choice, layout, shown)

    def _measured(self, choice: int) -> Layout:
        rows = self.spec.choices[choice][1]
        some = rows[: -(-len(rows) // max(1, self._places()))]  # all are to have work
        unit = Unit(0, 0, choice, 0, 0)
        job = self._job(Part(unit, some, send=True), len(some))
        try:
            found = self._submit(_worker.measure, job).result()
        except Exception as error:  # of the executor: a worker was lost
            raise _gone(_worker.told(error)) from error
        if isinstance(found, Failed | Unfit):
            raise ValueError(f"training: a worker cannot run it: {found.error}")
        return found

    # Rungs

    def _rung(self, rung: int, number: int) -> int:
        """All groups of a rung; the number of the first unit of the next."""
        size = lambda choice: self.folder.lanes_of(choice) or 1
        scores, ended = self.standing.scores, self.standing.scores[rung]
        alive = len(self.order.alive(rung, scores))

        def left() -> Iterator[Part]:
            nonlocal number
            for unit, rows in self.order.of_rung(rung, scores, size, number):
                number = unit.number + self.order.evaluations(unit)
                rows = [i for i in rows if i not in ended]
                if rows:
                    yield Part(unit, rows)

        waiting = left()
        while self._fill(waiting):
            self._wait(alive)
        self._write_marks()
        return number

    def _fill(self, waiting: Iterator[Part]) -> bool:
        """Submits as many as there are places for; whether there is anything to wait for."""
        most = AHEAD * max(1, self._places())
        while len(self.running) < most:
            part = self._next(waiting)
            if part is None:
                break
            job = self._job(part, self.folder.lanes_of(part.unit.choice) or 1)
            pathlib.Path(job.folder).mkdir(parents=True, exist_ok=True)
            self.running[self._submit(_worker.work, job)] = part
        return bool(self.running)

    def _next(self, waiting: Iterator[Part]) -> Part | None:
        if self.suspects and not any(part.lost for part in self.running.values()):
            return self.suspects.popleft()
        return self.again.popleft() if self.again else next(waiting, None)

    def _wait(self, alive: int) -> None:
        done, _ = concurrent.futures.wait(
            self.running, SECONDS, concurrent.futures.FIRST_COMPLETED
        )
        for future in done:
            part = self.running.pop(future)
            self._back(part, future)
            self._tell(alive - self.bad[part.unit.rung])
        if not done and _executors.is_gone(self.executor):
            raise _gone("its client has lost the scheduler")
        if self.progress.interrupted():
            raise KeyboardInterrupt

    def _places(self) -> int:
        if time.monotonic() - self.looked > SECONDS:
            found = _executors.places(self.executor, self.places)
            if not found and (self.places or self.looked < 0):
                self.progress.message("nobody works for the executor: waits")
            self.places, self.looked = found, time.monotonic()
        return self.places

    def _submit(self, f: Any, job: Job) -> concurrent.futures.Future:
        try:
            return self.executor.submit(f, job)
        except Exception as error:  # each has its own for "I am gone"
            raise _gone(_worker.told(error)) from error

    # One group

    def _job(self, part: Part, lanes: int) -> Job:
        unit, rows = part.unit, part.rows
        digest, sent = self.pickled[unit.choice]
        padded = (rows + rows[:1] * lanes)[:lanes]
        last = unit.rung == len(self.spec.rungs) - 1
        return Job(
            secrets.token_hex(8),
            digest,
            sent if part.send or len(sent) <= SMALL else None,
            self.settings,
            lanes,
            _worker.numbers_of(self.spec.numbers, padded),
            len(rows),
            unit.step,
            self.order.until(unit.rung, unit.choice),
            self.spec.every,
            self._entering(unit, padded),
            self.spec.score,
            self.standing.bound if last else None,
            str(self._folder_of(part)),
            str(self.token),
            self.spec.seconds,
        )

    def _entering(self, unit: Unit, rows: list[int]) -> list[Any] | None:
        if unit.rung == 0:
            return None
        kept = [self.folder.kept(unit.rung - 1, i) for i in rows]
        if not all(path.exists() for path in kept):
            return None
        training, config = self.made[unit.choice], self.spec.numbers
        row = {k: jax.ShapeDtypeStruct((), a.dtype) for k, a in config.items()}
        like = jax.eval_shape(lambda row: _training.begin(training, row), row)
        return [_store.load(path, like)[0] for path in kept]

    def _folder_of(self, part: Part) -> pathlib.Path:
        """By what is in it: halves of a group have folders of their own."""
        unit, rows = part.unit, part.rows
        of = hashlib.sha256(repr(rows).encode()).hexdigest()[:8]
        return self.work / f"rung-{unit.rung}" / f"config-{rows[0]}-{of}"

    def _back(self, part: Part, future: concurrent.futures.Future) -> None:
        """What has come of a group."""
        if future.cancelled():
            raise _gone("what was submitted is cancelled")
        try:
            found = future.result()
        except Exception as error:  # of the executor: a worker was lost
            self._lost(part, _worker.told(error))
            return
        if isinstance(found, Ended):
            self._write(part, found)
        elif isinstance(found, Missing):
            self.again.appendleft(part._replace(send=True))
        elif isinstance(found, Failed):
            self._fails(part, found.error)
        elif isinstance(found, Stopped):
            raise _gone(f"{self.token} was taken away, by another run of this sweep")
        else:
            raise ValueError(f"executor: a worker is unfit: {found.error}")

    def _lost(self, part: Part, why: str) -> None:
        if part.lost >= AGAIN:
            self._fails(part, f"its worker was lost {part.lost + 1} times ({why})")
            return
        self.say(f"{_settings(part.rows)}: lost ({why}), and submitted again")
        self.suspects.append(part._replace(lost=part.lost + 1))

    def _fails(self, part: Part, error: str) -> None:
        """Halved, until the configuration at fault is alone."""
        shutil.rmtree(self._folder_of(part), ignore_errors=True)
        half = len(part.rows) // 2
        if half:
            queue = self.suspects if part.lost else self.again
            for rows in (part.rows[half:], part.rows[:half]):
                queue.appendleft(part._replace(rows=rows, lost=min(part.lost, 1)))
            return
        self.marks.append((part, error))
        none = not any(self.standing.scores)
        if none and len(self.marks) >= ALL_FAIL:
            raise ValueError(
                f"training: the first {len(self.marks)} configurations fail: {error}"
            )
        self.say(f"{_settings(part.rows)}: {error}")

    # What is written down

    def _write(self, part: Part, found: Ended) -> None:
        unit, rows = part.unit, part.rows
        until = self.order.until(unit.rung, unit.choice)
        lines = [
            row
            for k, (step, figures, diverged) in enumerate(found.found, 1)
            for row in _rows.lines(
                unit.number + k, unit.rung, step, step == until, rows, figures,
                diverged, hardware=found.hardware,
            )
        ]  # fmt: skip
        for row in lines:
            self._note(row)
        last = unit.rung == len(self.spec.rungs) - 1
        wanted = self.standing.best if last else rows
        for j, lane in found.lanes.items():  # before the rows: who has rows has files
            if rows[j] in wanted:
                self.folder.leave(unit.rung, rows[j], lane)
        self.folder.rows.append(lines)
        shutil.rmtree(self._folder_of(part), ignore_errors=True)
        self._say_hardware(found.hardware)
        self._write_marks()

    def _write_marks(self) -> None:
        """Configurations that failed, with rows that hold no figures."""
        for part, error in self.marks:
            unit, lines = part.unit, []
            ends = self.order.ends_of(unit.rung, part.rows[0])
            for k, step in enumerate(ends, 1):
                lines += _rows.lines(
                    unit.number + k, unit.rung, step, step == ends[-1], part.rows,
                    [{"loss": math.nan}], [-1], error=error,
                )  # fmt: skip
            for row in lines:
                self._note(row)
            self.folder.rows.append(lines)
        self.marks = []

    def _note(self, row: dict[str, Any]) -> None:
        worth = self.standing.add(row)
        before = self.order.before(row["rung"], row["config"])
        if row["last"]:
            self.done += row["at"] - before
            self.bad[row["rung"]] += math.isnan(worth)
        if not math.isnan(worth) and (self.now is None or worth < self.now[0]):
            self.now = worth, row["config"]

    def _say_hardware(self, kind: str) -> None:
        if kind in self.hardware:
            return
        self.hardware.add(kind)
        if len(self.hardware) > 1:
            self.say(
                f"groups run on unlike hardware ({', '.join(sorted(self.hardware))}): "
                "numbers depend on it in their last digits, see the column hardware"
            )

    def _tell(self, alive: int) -> None:
        best = self.now and (self.standing.score(self.now[0]), self.now[1])
        self.progress.advanced(Status(self.done, self.order.total(), alive, best))
        told = {} if best is None else dict(best=best[0])
        self.progress.measured(self.done, told | dict(alive=alive))

    def _finish(self) -> Result:
        columns = _results.columns_of(self.spec.space)
        table = _results.table_from(columns, self.folder.rows.path)
        best = self.standing.found(columns, self.folder.best)
        self.folder.write(table, best)
        shutil.rmtree(self.work, ignore_errors=True)
        return Result(table, best, self.folder.config["layouts_shown"])


def pickled(training: Training) -> tuple[str, bytes]:
    """A training for workers, and its digest: functions of one's own by what they are.

    Raises:
      ModuleNotFoundError: cloudpickle is not here.
      TypeError: it holds what cannot be pickled.
    """
    try:
        import cloudpickle
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "executor: what is sent is pickled by cloudpickle: pip install "
            "'bptt-jax[cluster]'"
        ) from None
    try:
        found = cloudpickle.dumps(training)
    except Exception as error:  # each object has its own
        raise TypeError(
            f"training: it cannot be sent to workers: {_worker.told(error)}"
        ) from error
    return hashlib.sha256(found).hexdigest(), found


def _settings(rows: list[int]) -> str:
    some = ", ".join(map(str, rows[:10])) + (", …" if len(rows) > 10 else "")
    return f"setting{'s' if len(rows) > 1 else ''} {some}"


def _gone(why: str) -> ConnectionError:
    return ConnectionError(
        f"executor: {why}; what has ended is saved: the same command goes on"
    )
