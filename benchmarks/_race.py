"""One race: several ways to a gradient, built, compared and timed in turns.

What becomes of it is told as it happens, one event after another, so that of a race that
is cut what was there is known:

    begins   way               from here on it is that way's fault
    row      way, row          it is built: what it took, and how far it is from the reference
    failed   way, why          an error, in words; the rest goes on
    declined way, why          it is not for this, or is not installed
    times    rows              of all that were built
"""

import gc
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks import _clock
from benchmarks._agree import TOLERANCE, difference
from benchmarks._contestants import Declined, Program

LONGEST = 400  # letters of an error that are kept
TIMING = "all, in turns"  # what is at fault while they are timed


class Way(NamedTuple):
    """A way to the gradient.

    build: `() -> Program`; imports what it needs. A `Declined` or an ImportError says
        why it takes no part, what else is raised is a failure.
    tolerance: how far from the reference it may be; None: it has other answers.
    rival: a way from which it may be twice as far as that one is.
    """

    build: Callable[[], Program]
    tolerance: float | None = TOLERANCE
    rival: str | None = None


class Race(NamedTuple):
    """name: of the race. kind: of its table. about: sizes, for who reads the file.

    ways: by name. reference: that of the others' answers, and of ratios; it comes first.
    seconds: of timing, 0: they are compared only.
    rounds: least and most.
    alone: whether it wants a process that has run nothing before, for what is told of
        memory is the most of a process.
    """

    name: str
    kind: str
    ways: dict[str, Way]
    reference: str
    seconds: float = 4.0
    rounds: tuple[int, int] = (3, 25)
    alone: bool = False
    about: dict[str, Any] = {}


def run(race: Race, without: list[str]) -> Iterator[dict]:
    """The events of a race, without those ways that ended a process before."""
    programs: dict[str, Program] = {}
    rows: dict[str, dict] = {}
    answers: dict[str, tuple] = {}
    order = [race.reference, *(name for name in race.ways if name != race.reference)]
    for name in order:
        if name in without:
            continue
        yield dict(event="begins", way=name)
        try:
            program, row = _built(race, name, answers, rows)
        except (Declined, ImportError) as reason:
            yield dict(event="declined", way=name, why=_words(reason))
        except Exception as error:
            yield dict(event="failed", way=name, why=_words(error))
        else:
            programs[name], rows[name] = program, row
            yield dict(event="row", way=name, row=row)
    if race.seconds and programs:
        yield dict(event="begins", way=TIMING)
        calls = {name: program.gradient for name, program in programs.items()}
        try:
            times = _clock.interleaved(calls, race.seconds, race.rounds)
        except Exception as error:
            yield dict(event="failed", way=TIMING, why=_words(error))
        else:
            found = {name: _clock.summary(ms) for name, ms in times.items()}
            yield dict(event="times", rows=found)
    programs.clear()
    gc.collect()


def _built(race: Race, name: str, answers: dict, rows: dict) -> tuple[Program, dict]:
    """A way that ran once, and its row without times."""
    way = race.ways[name]
    program = way.build()
    row: dict[str, Any] = dict(
        compile_s=program.compile_s, temp_bytes=program.temp_bytes
    )
    if program.host_bytes is not None:
        row["host_bytes"] = program.host_bytes
    before = memory()
    begin = time.perf_counter()
    program.gradient()
    row["first_call_s"] = round(time.perf_counter() - begin, 4)
    if race.alone:
        row["memory"] = dict(before=before, after=memory())
        if program.peak is not None:
            row["memory"]["by_library"] = program.peak()
    if way.tolerance is not None:
        answers[name] = program.gradients()
        if name != race.reference and race.reference in answers:
            row |= _compared(way, answers.pop(name), answers[race.reference], rows)
    return program, row


def _compared(way: Way, answer: tuple, reference: tuple, rows: dict) -> dict:
    apart = difference(answer, reference)
    rival = rows.get(way.rival or "", {}).get("difference") or 0.0
    agrees = bool(apart <= max(way.tolerance or 0.0, 2 * rival))
    known = math.isfinite(apart)  # JSON has no other numbers
    return dict(difference=float(f"{apart:.2g}") if known else None, agrees=agrees)


def memory() -> dict[str, int] | None:
    """Bytes of the device that are in use, and that were at most; None: it is not told."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    names = "bytes_in_use", "peak_bytes_in_use", "bytes_limit"
    return {name: stats[name] for name in names if name in stats} or None


def _words(error: BaseException) -> str:
    """An error's kind and its message, or a reason as it is; on one line."""
    kind = "" if isinstance(error, Declined) else f"{type(error).__name__}: "
    text = " ".join(f"{kind}{error}".split())
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"
