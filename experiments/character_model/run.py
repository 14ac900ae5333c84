"""Trains the default character model, by hand-derived BPTT and by differentiating a scan.

    python experiments/character_model/run.py             three trainings long
    python experiments/character_model/run.py --runs 1    the default training alone
    python experiments/character_model/run.py --quick     seconds, writes no results

Runs what `bptt-jax train` runs and reads what it leaves. Stopped and called again it
continues. `results.json` holds one entry for each version of Python, whose standard
library is the text.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import tempfile
import time

import jax
import numpy as np

from bptt_jax import cli, plots, tasks, train

HERE = pathlib.Path(__file__).parent
RUNS = (("bptt", 0), ("scan", 0), ("bptt", 1))
QUICK = ["--quick", "--hidden", "16", "--batch", "8", "--steps", "20"]
BITS = 1 / math.log(2)


def trained(folder: pathlib.Path, unroll: str, seed: int, options: list[str]) -> dict:
    """One training by the command line: its curve, and how long it took here."""
    out = folder / f"{unroll}-{seed}"
    began, fresh = time.perf_counter(), not out.exists()
    status = cli.main(
        ["train", "--unroll", unroll, "--seed", str(seed), "--out", str(out), *options]
    )
    if status:
        raise SystemExit(status)
    if fresh:  # of a training that was continued no duration is known
        seconds = round(time.perf_counter() - began)
        (out / "seconds.json").write_text(json.dumps(seconds))
    lines = train.MetricsFile(out / "metrics.jsonl").lines()
    took = out / "seconds.json"
    return dict(
        unroll=unroll,
        seed=seed,
        held_out=BITS * lines[-1]["final_held_out"],
        curve=[BITS * line["loss"] for line in lines if "loss" in line],
        seconds=json.loads(took.read_text()) if took.exists() else None,
    )


def summary(runs: list[dict]) -> dict:
    found = dict(
        jax=jax.__version__,
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        vector_instructions=_vector_instructions(),
        ngram=round(tasks.ngram_baseline(tasks.stdlib()), 3),
        steps=len(runs[0]["curve"]),
        runs=[
            {k: run[k] for k in ("unroll", "seed", "seconds")}
            | dict(held_out=round(run["held_out"], 3))
            for run in runs
        ],
    )
    if len(runs) > 1:
        by_hand, by_jax = (np.array(run["curve"]) for run in runs[:2])
        apart = np.abs(by_hand / by_jax - 1)[:100].max()
        found["first_100_losses_differ_by"] = float(f"{apart:.1e}")
    return found


def _vector_instructions() -> str:
    cpu = pathlib.Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    return "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "unknown"


def figure(runs: list[dict], baseline: float):
    series = {}
    for run in runs[:2]:
        width = max(1, len(run["curve"]) // 50)
        smooth = np.convolve(run["curve"], np.ones(width) / width, "valid")
        name = f"unrolls.{run['unroll']} (held out {run['held_out']:.3f})"
        series[name] = np.arange(width, len(run["curve"]) + 1), smooth
    return plots.curves(
        series,
        unit="bits per character",
        levels={f"5-gram, held out ({baseline:.3f})": baseline},
        limits=(1.3, 3.5),
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two tiny trainings")
    parser.add_argument("--runs", type=int, default=len(RUNS), help="so many of them")
    options = parser.parse_args(arguments)
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            runs = [trained(pathlib.Path(folder), *run, QUICK) for run in RUNS[:2]]
        print(json.dumps(summary(runs), indent=1))
        return
    version = ".".join(platform.python_version_tuple()[:2])
    folder = HERE / "runs" / version
    runs = [trained(folder, *run, []) for run in RUNS[: options.runs]]
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results[version] = summary(runs)
    path.write_text(json.dumps(results, indent=1) + "\n")
    drawing = figure(runs, results[version]["ngram"])
    drawing.savefig(HERE / f"loss-{version}.png", dpi=130)
    print(json.dumps(results[version], indent=1))


if __name__ == "__main__":
    main()
