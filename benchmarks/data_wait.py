"""How much of a training's time its loop waits for data.

python -m benchmarks.data_wait            # four tasks, a minute; writes results/data_wait.json
python -m benchmarks.data_wait --quick    # few updates, without --out writes nothing

Small trainings, in which reading is the most that it can be beside computing: `data_wait` of
`timings.jsonl`, the share of the seconds of updates in which the loop waited for the thread that
reads. The first dispatch, in which programs are compiled, is left out. Tasks are trained in turns,
each time from the beginning. Data are synthetic, of the shapes that are named.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optax

from benchmarks import _machine
from bptt_jax import cells, estimators, models, progress, tasks, train

RESULTS = pathlib.Path(__file__).parent / "results" / "data_wait.json"
UPDATES, ROUNDS, QUICK = 200, 5, 40
CLASSES = 9


class Training(NamedTuple):
    """What is trained, in words, and how."""

    what: str
    task: Any
    model: Any
    estimator: Any


def recordings(rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """270 sequences of 7 to 29 steps of 12 features: the shapes of Japanese Vowels."""
    xs = [rng.normal(size=(n, 12)) for n in rng.integers(7, 30, 270)]
    return xs, np.arange(270) % CLASSES


def of_arrays(rng) -> Training:
    task = tasks.arrays(*recordings(rng), batch=27)
    model = models.features(cells.gru(task.n_in, 100), task.n_out, 100)
    exact = estimators.exact(model, task.objective)
    return Training("270 sequences of 7 to 29 steps, GRU of 100", task, model, exact)


def of_windows(rng) -> Training:
    series = np.cumsum(rng.normal(size=(10_000, 4)), 0)
    task = tasks.windows(series, T=48, horizon=12, season=24, batch=32)
    model = models.features(cells.gru(task.n_in, 64), task.n_out, 64)
    exact = estimators.exact(model, task.objective)
    return Training("10,000 steps of 4 features, T = 48, GRU of 64", task, model, exact)


def of_text(rng) -> Training:
    letters = rng.choice(list("abcdefghijklmnopqrstuvwxyz \n"), 500_000)
    task = tasks.text("".join(letters), batch=32, T=64)
    cell = cells.lstm(32, 128)
    model = models.symbols(task.n_in, 32, (cell,), task.n_out, 128)
    stream = estimators.stream(model, task.objective)
    return Training("500,000 characters, T = 64, LSTM of 128", task, model, stream)


def of_iterator(rng) -> Training:
    xs = rng.normal(size=(600, 40, 13)).astype(np.float32)
    ys = rng.integers(0, CLASSES, 600)

    def batches():
        for i in range(0, 600, 30):
            yield xs[i : i + 30], ys[i : i + 30]

    task = tasks.iterator(batches, held_out=batches, n_out=CLASSES)
    model = models.features(cells.gru(task.n_in, 100), task.n_out, 100)
    exact = estimators.exact(model, task.objective)
    return Training("600 sequences of 40 steps, GRU of 100", task, model, exact)


TASKS: dict[str, Callable] = {
    "arrays": of_arrays,
    "windows": of_windows,
    "text": of_text,
    "iterator": of_iterator,
}


def waited(training: Training, updates: int) -> dict[str, float]:
    """Of one training, without its first dispatch: the share, and updates a second."""
    _, task, model, estimator = training
    options = train.RunOptions(
        updates, evaluate_every=updates, checkpoint_every=updates, final_batches=1
    )
    with tempfile.TemporaryDirectory() as folder:
        train.run(
            task, model, estimator, _adam, options, folder, progress=progress.silent
        )
        text = (pathlib.Path(folder) / "timings.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()][1:]
    seconds = sum(line["seconds"] for line in lines)
    waits = sum(line["data_wait"] * line["seconds"] for line in lines)
    done = updates - options.per_dispatch
    return dict(share=waits / seconds, updates_per_second=done / seconds)


_adam = optax.adam(1e-3)


def summary(runs: list[dict[str, float]]) -> dict:
    shares = [run["share"] for run in runs]
    rates = [run["updates_per_second"] for run in runs]
    return dict(
        min=round(min(shares), 6),
        median=round(statistics.median(shares), 6),
        max=round(max(shares), 6),
        updates_per_second=round(statistics.median(rates), 1),
        runs=len(runs),
    )


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_wait")
    parser.add_argument("--quick", action="store_true", help="few updates")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="trainings of each")
    parser.add_argument(
        "--patience", type=float, default=120, help="for a quiet machine"
    )
    parser.add_argument("--out", type=pathlib.Path, help="the JSON that is written")
    args = parser.parse_args()
    if args.rounds < 1:
        raise SystemExit(f"--rounds: expected at least 1, got {args.rounds}")
    out = args.out or (None if args.quick else RESULTS)
    updates = QUICK if args.quick else UPDATES
    rng = np.random.default_rng(0)
    trainings = {name: make(rng) for name, make in TASKS.items()}
    busy = round(_machine.wait_until_quiet(args.patience), 3)
    runs: dict[str, list] = {name: [] for name in trainings}
    for i in range(args.rounds):
        for name in (trainings, reversed(trainings))[i % 2]:
            runs[name].append(waited(trainings[name], updates))
            print(f"{name}: waits {runs[name][-1]['share']:.2%}", flush=True)
    cases = {
        name: dict(what=training.what) | summary(runs[name])
        for name, training in trainings.items()
    }
    result = _machine.describe("cpu") | dict(busy=busy, updates=updates, cases=cases)
    if out:
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
