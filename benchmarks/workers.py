"""What the client of a sweep over workers does, which only pretend to compute.

python -m benchmarks.workers            # 10,000 groups, 64 workers; writes results/workers.json
python -m benchmarks.workers --quick    # 400 groups, 8 workers, writes nothing

By quarters of the groups: milliseconds of the client's own thread a group, and the most memory
that Python held (by tracemalloc, in a run of its own), over that before. Neither is to grow with
what is done already. Last, seconds of the table in the end.
"""

import argparse
import concurrent.futures
import json
import pathlib
import queue
import tempfile
import threading
import time
import tracemalloc

import numpy as np

from benchmarks import _machine
from bptt_jax import progress, sweep
from bptt_jax.sweep._job import Ended, Evaluated

RESULTS = pathlib.Path(__file__).parent / "results" / "workers.json"
EVALUATIONS, PARAMETERS = 20, 1000


class Pretends(concurrent.futures.Executor):
    """Gives back what workers would, one group after another, from a thread of its own."""

    def __init__(self, workers: int):
        self.max_workers, self.jobs = workers, queue.SimpleQueue()
        self.rng = np.random.default_rng(0)
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, f, /, job):
        future = concurrent.futures.Future()
        self.jobs.put((future, job))
        return future

    def _work(self):
        while True:
            future, job = self.jobs.get()
            if not future.cancelled():
                future.set_result(self._ended(job))

    def _ended(self, job) -> Ended:
        steps = range(job.every, job.until + 1, job.every)
        losses = self.rng.random((len(steps), job.real))
        found = [
            Evaluated(step, [dict(loss=a, held_out=a) for a in row.tolist()], [-1] * job.real)
            for step, row in zip(steps, losses, strict=True)
        ]  # fmt: skip
        good = [j for j in range(job.real) if losses[-1, j] <= job.bound]
        state = np.zeros(PARAMETERS, np.float32)
        return Ended(found, dict.fromkeys(good, state), "none", job.step)


def nothing(config, key):
    return config["lr"], lambda state: (state, dict(loss=state))


def client(groups: int, workers: int, look) -> list[float]:
    """`look()` after each group, by quarters of them: what it gave at their ends; and of
    the end.
    """
    marks, at = [look()], 0

    def advanced(status):
        nonlocal at
        at += 1
        if at % (groups // 4) == 0:
            marks.append(look())

    space = sweep.grid(lr=list(np.linspace(0.1, 1, groups)))
    with tempfile.TemporaryDirectory() as folder:
        sweep.run(
            nothing, space, steps=EVALUATIONS, evaluate_every=1, lanes=1,
            out=pathlib.Path(folder) / "s", executor=Pretends(workers),
            progress=progress.Progress(message=lambda text: None, advanced=advanced),
        )  # fmt: skip
        marks.append(look())
    return marks


def milliseconds(groups: int, workers: int) -> tuple[list[float], float]:
    """Of a group, by quarters; and seconds of the table in the end."""
    marks = client(groups, workers, time.thread_time)
    quarters = np.diff(marks[:5]) / (groups // 4) * 1e3
    return [round(a, 3) for a in quarters.tolist()], round(marks[5] - marks[4], 3)


def megabytes(groups: int, workers: int) -> list[float]:
    """The most that Python held, by quarters, over what it held before."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]

    def peak():
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        return found

    try:
        marks = client(groups, workers, peak)
    finally:
        tracemalloc.stop()
    return [round((mark - before) / 1e6, 3) for mark in marks[1:5]]


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers")
    parser.add_argument("--quick", action="store_true", help="400 groups, 8 workers")
    args = parser.parse_args()
    groups, workers = (400, 8) if args.quick else (10_000, 64)
    milliseconds(workers * 4, workers)  # what is compiled and imported once
    ms, table = milliseconds(groups, workers)
    mb = megabytes(groups, workers)
    print(f"a group, ms, by quarters: {ms}; the table in the end: {table} s")
    print(f"most memory, MB, by quarters: {mb}")
    if not args.quick:
        what = dict(groups=groups, workers=workers, evaluations=EVALUATIONS,
                    milliseconds=ms, megabytes=mb, table_seconds=table)  # fmt: skip
        RESULTS.write_text(json.dumps(_machine.describe("cpu") | what, indent=1) + "\n")


if __name__ == "__main__":
    main()
