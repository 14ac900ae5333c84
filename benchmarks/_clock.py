"""Times in one process, taken in turns."""

import statistics
import time
from collections.abc import Callable

PAUSE = 0.004  # seconds before each call: the threads of the one before it stop waiting


def timed(call: Callable) -> float:
    """Milliseconds of one call."""
    time.sleep(PAUSE)
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)


def interleaved(
    calls: dict[str, Callable], seconds: float, rounds: tuple[int, int] = (3, 25)
) -> dict[str, list[float]]:
    """Milliseconds of each call, in rounds that go there and back (A B C C B A …).

    As many rounds as `seconds` allow, within `rounds`; one call each before them.
    """
    for call in calls.values():
        call()
    once = 2e-3 * sum(timed(call) for call in calls.values())
    times: dict[str, list[float]] = {name: [] for name in calls}
    least, most = rounds
    for _ in range(max(least, min(most, round(seconds / once)))):
        for name in [*calls, *reversed(calls)]:
            times[name].append(timed(calls[name]))
    return times


def summary(times: list[float]) -> dict[str, float]:
    return dict(
        min=round(min(times), 4),
        median=round(statistics.median(times), 4),
        calls=len(times),
    )
