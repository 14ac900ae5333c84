"""A sweep in 1, 2 and 4 processes of this machine, and on paper on up to 10,000 hosts.

python -m benchmarks.processes            # writes benchmarks/results/processes.json
python -m benchmarks.processes --quick    # 1 and 2 processes, writes nothing

Seconds of `bptt-jax launch --processes n -- sweep …` from start to end; milliseconds of what
is read of a group at an evaluation (7 metrics, one program).
On paper: 1,000,000 configurations, one device a host, a gather taking what was measured
between two processes for each hop of a ring (the worst that is used) or of a tree.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks import _machine

RESULTS = pathlib.Path(__file__).parent / "results" / "processes.json"
SWEEP = (
    "sweep", "--task", "adding", "--cell", "lstm", "--hidden", "32", "--batch", "8",
    "--length", "100", "--lr", "1e-4:1e-1:log:16", "--lanes", "1",
)  # fmt: skip
STEPS, SEEDS, EVERY, CONFIGS = 400, 4, 40, 1_000_000


def launched(n: int, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "s"
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "bptt_jax", "launch", "--processes", str(n), "--",
             *SWEEP, "--seed", f"0:{SEEDS}", "--steps", str(steps), "--out", str(out)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return time.perf_counter() - began


def gather_ms(n: int) -> float:
    """The least and middle of many gathers, of the slowest process."""
    from bptt_jax.cli._launch import free_port, start

    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        errors = [pathlib.Path(folder) / f"{i}" for i in range(n)]
        # the same variables as a sweep's processes have
        code = "from benchmarks.processes import role; role()"
        processes = [
            start("localhost", f"127.0.0.1:{port}", n, i,
                  [sys.executable, "-c", code, f"{folder}/r{i}"], errors[i])
            for i in range(n)
        ]  # fmt: skip
        for p, path in zip(processes, errors, strict=True):
            assert p.wait(timeout=120) == 0, path.read_text()
        found = [
            json.loads((pathlib.Path(folder) / f"r{i}").read_text()) for i in range(n)
        ]
    return max(found)


def role():
    """One of the processes of `gather_ms`."""
    from bptt_jax.cli._launch import join

    join()
    import jax
    import numpy as np

    from bptt_jax._processes import gathered
    from bptt_jax.sweep._program import mesh_of, spread

    mesh = mesh_of(jax.devices())
    tree = {f"m{i}": spread(np.ones(mesh.size, np.float32), mesh) for i in range(7)}
    times = []
    for _ in range(200):
        began = time.perf_counter()
        gathered(tree)
        times.append(1e3 * (time.perf_counter() - began))
    pathlib.Path(sys.argv[1]).write_text(json.dumps(sorted(times)[len(times) // 2]))


def on_paper(alone_s: float, start_s: float, gather: float) -> list[dict]:
    """(1) of docs/scaling.md for a million configurations; times in hours."""
    rows = []
    for hosts in (1, 10, 100, 1000, 10_000):
        groups = math.ceil(CONFIGS / hosts)
        work = groups * alone_s
        evaluations = groups * STEPS / EVERY
        tree = evaluations * gather * math.ceil(math.log2(hosts)) / 1e3
        ring = evaluations * gather * (hosts - 1) / 1e3
        rows.append(dict(
            hosts=hosts, training_hours=round(work / 3600, 3),
            gathers_tree_hours=round(tree / 3600, 3),
            gathers_ring_hours=round(ring / 3600, 3),
            gathers_ring_one_evaluation_hours=round(ring * EVERY / STEPS / 3600, 3),
            start_hours=round(start_s / 3600, 4),
        ))  # fmt: skip
    return rows


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes")
    parser.add_argument("--quick", action="store_true", help="1 and 2 processes")
    args = parser.parse_args()
    counts, steps = ((1, 2), 20) if args.quick else ((1, 2, 4), STEPS)
    rows = {}
    for n in counts:
        seconds = min(launched(n, steps) for _ in range(1 if args.quick else 2))
        start = min(launched(n, 1) for _ in range(1 if args.quick else 2))
        rows[n] = dict(
            seconds=round(seconds, 2), of_one_step=round(start, 2),
            gather_ms=round(gather_ms(n), 3) if n > 1 else 0.0,
        )  # fmt: skip
        print(f"{n} processes: {seconds:.1f} s, with one step {start:.1f} s, a gather "
              f"{rows[n]['gather_ms']:.2f} ms", flush=True)  # fmt: skip
    configs = 16 * SEEDS
    alone = (rows[1]["seconds"] - rows[1]["of_one_step"]) / configs * STEPS / steps
    paper = on_paper(alone, rows[1]["of_one_step"], rows[2]["gather_ms"])
    for row in paper:
        print(row)
    if not args.quick:
        what = dict(configs=configs, steps=STEPS, evaluate_every=EVERY,
                    processes=rows, alone_seconds=round(alone, 4), on_paper=paper)  # fmt: skip
        RESULTS.write_text(json.dumps(_machine.describe("cpu") | what, indent=1) + "\n")


if __name__ == "__main__":
    main()
