"""What the allocator of C costs a gradient on a CPU: glibc as it is, and told to do otherwise.

python -m benchmarks.allocations            # three shapes, some minutes
python -m benchmarks.allocations --quick    # one small shape, without --out writes nothing

Each contestant has a process for each of `WAYS`, the variables of its environment. They compile,
then compute in turns (A B C C B A …), one at a time: milliseconds and page faults of a call.
Linux with glibc. Writes benchmarks/results/allocations.json.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks import _cases, _machine

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "allocations.json"
KEPT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
"""Nothing is mapped by itself, nothing is given back, the heap grows by 256 MiB at once."""
ONE_ARENA = KEPT | {"MALLOC_ARENA_MAX": "1"}
"""The same of all threads: others than the first have arenas of their own, of other rules."""
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Memory that is fresh is asked for in pages of 2 MB (from glibc 2.35 on; no effect before)."""
WAYS = dict(as_it_is={}, kept=KEPT, one_arena=ONE_ARENA, large_pages=LARGE_PAGES)
SHAPES = ((16, 784, 4, 64), (256, 128, 64, 64), (64, 256, 128, 256))
QUICK = ((2, 8, 3, 16),)
CONTESTANTS = {
    "bptt_jax": ("_bptt_jax", "bptt"),
    "flax.linen.RNN": ("_linen", "linen"),
    "torch": ("_torch", "torch_cpu"),
}
ROUNDS, SECONDS = 6, 2.0
WARM = 6  # calls before: what is made once, and a heap that grows


class Turn(NamedTuple):
    """Of one turn of a process: milliseconds of each call, page faults of all."""

    ms: list[float]
    faults: int


class Contestant:
    """A process that has compiled a gradient and computes it when it is told to."""

    def __init__(self, name: str, case: _cases.Case, environment: dict[str, str]):
        told = ONE_ARENA | LARGE_PAGES
        plain = {k: v for k, v in os.environ.items() if k not in told}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from benchmarks.allocations import role; role()",
             name, json.dumps(case)],
            env=plain | environment | dict(JAX_PLATFORMS="cpu"),
            cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def answer(self):
        """What it says next, read as JSON."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a process ended with status {self.process.wait()}")
        return json.loads(line)

    def turn(self, calls: int) -> Turn:
        assert self.process.stdin
        print(calls, file=self.process.stdin, flush=True)
        return Turn(*self.answer())

    def end(self) -> None:
        self.process.communicate(timeout=60)


def role() -> None:
    """The other side: why it is not there, or None; then for each number that comes a turn."""
    import resource

    name, case = sys.argv[1], _cases.Case(*json.loads(sys.argv[2]))
    from benchmarks._contestants import Declined, contestant

    try:
        program = contestant(*CONTESTANTS[name]).build(case, 1)
    except (ImportError, Declined) as reason:
        print(json.dumps(str(reason)), flush=True)
        return
    print(json.dumps(None), flush=True)
    for line in sys.stdin:
        faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        before, times = faults(), []
        for _ in range(int(line)):
            begin = time.perf_counter()
            program.gradient()
            times.append(1e3 * (time.perf_counter() - begin))
        print(json.dumps((times, faults() - before)), flush=True)


def compare(name: str, case: _cases.Case, rounds: int, seconds: float) -> dict | str:
    """Of one contestant: each of `WAYS`, and ratios to the first; or why it is not there."""
    ways = {how: Contestant(name, case, more) for how, more in WAYS.items()}
    try:
        for reason in [way.answer() for way in ways.values()]:
            if reason is not None:
                return reason
        first = {how: way.turn(WARM) for how, way in ways.items()}
        once = statistics.mean(min(turn.ms) for turn in first.values()) / 1e3
        calls = max(1, min(200, round(seconds / (len(ways) * rounds * once))))
        turns: dict[str, list[Turn]] = {how: [] for how in ways}
        for i in range(rounds):
            for how in (ways, reversed(ways))[i % 2]:
                turns[how].append(ways[how].turn(calls))
    finally:
        for way in ways.values():
            way.end()
    rows = {how: summary(of, calls) for how, of in turns.items()}
    plain = rows["as_it_is"]
    for row in rows.values():
        row["faster"] = {of: round(plain[of] / row[of], 3) for of in ("min", "median")}
    return rows


def summary(turns: list[Turn], calls: int) -> dict:
    ms = [one for turn in turns for one in turn.ms]
    faults = sum(turn.faults for turn in turns) / (calls * len(turns))
    return dict(
        min=round(min(ms), 4), median=round(statistics.median(ms), 4),
        calls=len(ms), faults=round(faults, 1),
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.allocations")
    parser.add_argument("--quick", action="store_true", help="one small shape")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="of a contestant"
    )
    parser.add_argument(
        "--patience", type=float, default=120, help="for a quiet machine"
    )
    parser.add_argument("--out", type=pathlib.Path, help="the JSON that is written")
    args = parser.parse_args()
    if args.rounds < 1:
        raise SystemExit(f"--rounds: expected at least 1, got {args.rounds}")
    if platform.libc_ver()[0] != "glibc":
        raise SystemExit("these variables are glibc's, which is not here")
    out = args.out or (None if args.quick else RESULTS)
    result = _machine.describe("cpu") | dict(
        glibc=platform.libc_ver()[1], environment=WAYS, busy={}, cases=[]
    )
    for shape in QUICK if args.quick else SHAPES:
        case = _cases.Case("lstm", *shape)
        result["busy"][case.name] = round(_machine.wait_until_quiet(args.patience), 3)
        record = dict(name=case.name, shape=shape, rows={}, missing={})
        for name in CONTESTANTS:
            found = compare(name, case, args.rounds, args.seconds)
            record["missing" if isinstance(found, str) else "rows"][name] = found
            print(f"{case.name}, {name}: {found}", flush=True)
        result["cases"].append(record)
        if out:
            out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
