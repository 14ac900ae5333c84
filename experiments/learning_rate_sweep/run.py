"""Which learning rate does a recurrent network want, and how sure is that?

python experiments/learning_rate_sweep/run.py           # writes results.json and the figure
python experiments/learning_rate_sweep/run.py --quick   # few settings, writes nothing

The adding problem (T = 100), LSTM, GRU and Elman of 32 units, Adam: 16 learning rates with
8 seeds each, for each cell one compiled program (`bptt_jax.sweep`); beside it the time of
one training by itself. A sweep that was stopped goes on.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import sys
import tempfile
import time

import jax
import numpy as np
import optax

from bptt_jax import cells, estimators, models, plots, sweep, tasks, train

HERE = pathlib.Path(__file__).parent
RUNS = HERE / "runs"
CELLS = dict(lstm=cells.lstm, gru=cells.gru, elman=cells.elman)
T, HIDDEN, BATCH, STEPS, EVALUATIONS, HELD_OUT = 100, 32, 20, 2000, 10, 10
RATES, SEEDS = np.geomspace(1e-4, 1e-1, 16), 8
SOLVED = 0.02  # held-out squared error; predicting 1 has 1/6


def optimizer(lr):
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(lr))


def job(cell: str, T: int):
    task = tasks.adding(batch=BATCH, T=T)
    model = models.features((CELLS[cell](2, HIDDEN),), 1, HIDDEN)
    return task, model, estimators.exact(model, task.objective)


def alone(cell: str, T: int, steps: int) -> float:
    """Seconds of one training by itself, compiled before, with the same evaluations."""
    task, model, estimator = job(cell, T)
    made = optimizer(1e-3)
    advance = train.many_steps(estimator, made, task.train.batch)
    losses = train.evaluator(model, task.objective, task.held_out.batch, False)
    every, held_out = steps // EVALUATIONS, task.held_out.read(0, HELD_OUT)

    def once() -> float:
        state = train.init(model, estimator, made, task.train, jax.random.key(0))
        began = time.perf_counter()
        for at in range(0, steps, every):
            state, _ = advance(state, task.train.read(at, every))
            jax.block_until_ready(losses(state.params, None, held_out))
        return time.perf_counter() - began

    once()
    return min(once() for _ in range(3))


def swept(cell: str, T: int, steps: int, space: sweep.Space, out: pathlib.Path):
    """`(result, seconds)`; no seconds where an earlier run had begun."""
    whole, told = not out.exists(), [-1]

    def show(status: sweep.Status):
        percent = 100 * status.done // status.total
        if percent // 10 > told[0]:
            told[0] = percent // 10
            best = f"{status.best[0]:.4f}" if status.best else "none"
            print(f"  {percent:3} %  {status.alive} alive, best {best}", flush=True)

    began = time.perf_counter()
    result = sweep.run(
        sweep.training(*job(cell, T), optimizer, held_out_batches=HELD_OUT),
        space, steps=steps, evaluate_every=steps // EVALUATIONS, out=out, keep=1,
        progress=train.Progress(message=lambda text: print(f"  {text}"), advanced=show),
    )  # fmt: skip
    return result, time.perf_counter() - began if whole else None


def last_rows(result: sweep.Result) -> list[dict]:
    return list({row["config"]: row for row in result.table.to_pylist()}.values())


def summary(rows: list[dict]) -> list[dict]:
    """For each learning rate the median, the best and the worst, and how many solve it."""
    found = []
    for lr in sorted({row["lr"] for row in rows}):
        scores = [row["held_out"] for row in rows if row["lr"] == lr]
        fine = [np.inf if s is None else s for s in scores]
        found.append(dict(
            lr=float(f"{lr:.4g}"), median=round(float(np.median(fine)), 5),
            least=round(min(fine), 5), most=round(max(fine), 5),
            solved=sum(s < SOLVED for s in fine), seeds=len(fine),
        ))  # fmt: skip
    return found


def figure(what: dict):
    series = {
        cell: (
            [row["lr"] for row in found["rates"]],
            [[row[k] for row in found["rates"]] for k in ("least", "median", "most")],
        )
        for cell, found in what["cells"].items()
    }
    return plots.curves(
        series,
        label="learning rate (Adam)",
        unit="held-out squared error after 2000 steps",
        levels={"predicts 1": 1 / 6},
        log=True,
        log_x=True,
    )


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one cell, 4 settings")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", cores)
    steps, T_, rates, seeds = (STEPS, T, RATES, SEEDS)
    if args.quick:
        steps, T_, rates, seeds = 20, 20, [1e-3, 1e-2], 2
    runs = pathlib.Path(tempfile.mkdtemp()) if args.quick else RUNS
    space = sweep.grid(lr=list(rates), seed=range(seeds))
    rows, results = {}, {}
    for cell in ["gru"] if args.quick else CELLS:
        print(cell, flush=True)
        one = alone(cell, T_, steps)
        result, seconds = swept(cell, T_, steps, space, runs / cell)
        rows[cell] = last_rows(result)
        ratio = seconds and seconds / (space.size * one)
        results[cell] = dict(
            rates=summary(rows[cell]), alone_seconds=round(one, 3),
            seconds=seconds and round(seconds, 1), to_one_by_one=ratio and round(ratio, 3),
            layout=result.layouts,
        )  # fmt: skip
        best = min(results[cell]["rates"], key=lambda r: r["median"])
        print(f"  best median {best['median']:.4f} at {best['lr']:g}, {best['solved']} of "
              f"{best['seeds']} seeds below {SOLVED}; {one:.2f} s alone"
              + (f", {ratio:.2f} of one by one" if ratio else ""))  # fmt: skip
    if args.quick:
        return shutil.rmtree(runs)
    what = dict(
        jax=jax.__version__, machine=f"{platform.machine()}, {cores} cores", T=T,
        hidden=HIDDEN, batch=BATCH, steps=STEPS, cells=results,
    )  # fmt: skip
    (HERE / "results.json").write_text(json.dumps(what, indent=1) + "\n")
    figure(what).savefig(HERE / "learning_rate_sweep.png", dpi=120)


if __name__ == "__main__":
    main()
