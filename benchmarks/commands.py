"""Whole commands of this checkout against those of another one, in turns.

python -m benchmarks.commands OTHER            # a folder with another checkout, say a worktree
python -m benchmarks.commands OTHER --only sweep16 --rounds 3
python -m benchmarks.commands OTHER --quick    # a few steps, writes nothing

sweep16, sweep32: `bptt-jax sweep` as `benchmarks.sweep` has it, from start to end. train:
`bptt-jax train` as it is, for `FEW` and for `MANY` steps; what is between them are steps
alone, without start and compilation. Each command has empty caches of its own and runs as
its users have it. Writes benchmarks/results/commands.json after each case.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import _machine, sweep

RESULTS = pathlib.Path(__file__).parent / "results" / "commands.json"
HERE = pathlib.Path(__file__).parents[1]
FEW, MANY = 50, 250
QUICK = ["--hidden", "8", "--batch", "2"]


def run(checkout: pathlib.Path, *words: str) -> float:
    """Seconds of `bptt-jax` with these words, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {
            "PYTHONPATH": f"{checkout}",
            "XDG_CACHE_HOME": f"{folder}/cache",
        }
        env.pop("JAX_COMPILATION_CACHE_DIR", None)
        command = [sys.executable, "-m", "bptt_jax", *words, "--out", f"{folder}/out"]
        began = time.perf_counter()
        done = subprocess.run(
            command, env=env, cwd=folder, capture_output=True, text=True
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(words)}: {done.stderr[-500:]}")
    return seconds


def of_sweep(H: int, quick: bool):
    n = 16 if quick else sweep.CASES[H]
    steps = 10 if quick else sweep.STEPS
    words = sweep.words(H, n, steps)
    return lambda checkout: dict(seconds=run(checkout, *words))


def of_training(quick: bool):
    few, many = (2, 4) if quick else (FEW, MANY)
    more = QUICK if quick else []

    def each(checkout) -> dict:
        short, long = (
            run(checkout, "train", "--steps", f"{n}", *more) for n in (few, many)
        )
        return dict(seconds=long, seconds_of_a_step=(long - short) / (many - few))

    return each


def cases(quick: bool) -> dict:
    return dict(
        sweep16=of_sweep(16, quick),
        sweep32=of_sweep(32, quick),
        train=of_training(quick),
    )


def compared(case, checkouts: dict, rounds: int) -> dict:
    """What each takes, in turns: A B, B A, …; and ours over theirs, the least and the median."""
    found: dict[str, list] = {name: [] for name in checkouts}
    for i in range(rounds):
        for name in sorted(checkouts, reverse=bool(i % 2)):
            found[name].append(case(checkouts[name]))
    ratios = {}
    for what in found["here"][0]:
        ours, theirs = ([a[what] for a in found[n]] for n in ("here", "other"))
        of = dict(min=min, median=statistics.median)
        ratios[what] = {n: round(f(ours) / f(theirs), 3) for n, f in of.items()}
    return dict(found, here_to_other=ratios)


def parse():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.commands", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("other", type=pathlib.Path, metavar="OTHER")
    parser.add_argument("--only", choices=cases(True), nargs="+")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.rounds < 1:
        raise SystemExit(f"--rounds: expected at least 1, got {args.rounds}")
    if not (args.other / "bptt_jax" / "__init__.py").is_file():
        raise SystemExit(f"expected a folder with the package, got {args.other}")
    return args


def main():
    args = parse()
    checkouts = dict(here=HERE, other=args.other.resolve())
    machine = _machine.describe("cpu")
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else dict(cases={})
    chosen = cases(args.quick)
    for name in args.only or chosen:
        row = compared(chosen[name], checkouts, args.rounds)
        row |= {
            f"commit_{n}": _machine.commit(folder) for n, folder in checkouts.items()
        }
        result = machine | dict(cases=result["cases"] | {name: row})
        print(f"{name}: of the other's time {row['here_to_other']}", flush=True)
        if not args.quick:
            RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
