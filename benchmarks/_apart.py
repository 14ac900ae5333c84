"""Races in a process of their own, which is stopped where it takes too long.

A compiler that does not end, a driver that hangs or a program that kills its process then
costs one way of one race. What is sent is pickled: `races` and `about` are functions of
modules.
"""

import contextlib
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator

from benchmarks import _race

BEGINS = 180.0  # seconds until a process has its device
ENDS = 5.0  # seconds that it has for going


class Gone(Exception):
    """Why there are no more events: the process ended, or was stopped."""


class Process:
    """A process that runs races by their names; started when the first one is asked for.

    Args:
      races: `() -> list[Race]`, called in the process.
      about: `() -> dict`, what is told of the device, called in the process.
    """

    def __init__(self, races: Callable, about: Callable):
        self._make = races, about
        self._process = None
        self._fresh = False
        self.about: dict = {}

    def start(self, until: float = math.inf) -> dict:
        """Starts one, and returns what it tells of its device.

        Args:
          until: of `time.monotonic()`, when the time of all is up.

        Raises:
          Gone: it ended before, or did not answer.
        """
        self.stop()
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(there, *self._make), daemon=True
        )
        self._process.start()
        there.close()
        self.about = self._next(min(until, time.monotonic() + BEGINS))
        self._fresh = True
        return self.about

    def events(
        self, race: _race.Race, without: list[str], until: float, patience: float
    ) -> Iterator[dict]:
        """What happens in a race, until it is done.

        Args:
          race: its name is sent.
          without: ways that take no part.
          until: of `time.monotonic()`, when the time of all is up.
          patience: seconds for which nothing may happen.

        Raises:
          Gone: the process ended, or was stopped since nothing came in time.
        """
        if self._process is None or (race.alone and not self._fresh):
            self.start(until)
        self._fresh = False
        self._here.send((race.name, without))
        while True:
            event = self._next(min(until, time.monotonic() + patience))
            if event["event"] == "done":
                return
            yield event

    def stop(self) -> None:
        """Ends the process, if there is one."""
        if self._process is None:
            return
        process, self._process = self._process, None
        with contextlib.suppress(OSError):
            self._here.send(None)
        process.join(ENDS)
        if process.is_alive():
            process.kill()
            process.join()
        self._here.close()

    def _next(self, until: float) -> dict:
        process, begin = self._process, time.monotonic()
        assert process is not None
        try:
            if self._here.poll(max(0.0, until - begin)):
                return self._here.recv()
        except (EOFError, OSError):
            process.join(ENDS)
            self._process = None
            code = process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"code {code}"
            raise Gone(f"its process ended by {how}") from None
        process.kill()
        process.join()
        self._process = None
        waited = time.monotonic() - begin
        raise Gone(f"stopped: nothing came in {waited:.0f} s")


def _serve(pipe, races: Callable, about: Callable) -> None:
    by_name = {race.name: race for race in races()}
    pipe.send(about())
    while (order := pipe.recv()) is not None:
        name, without = order
        for event in _race.run(by_name[name], without):
            pipe.send(event)
        pipe.send(dict(event="done"))
