"""Handwritten digits, by rows, pixel by pixel, and permuted: who remembers 784 steps?

    python experiments/digits/run.py            half an hour
    python experiments/digits/run.py --quick    seconds, writes nothing

Le, Jaitly, Hinton (2015), "A simple way to initialize recurrent networks of rectified
linear units", section 4.2: an image is read one pixel at a time, and its class told after
the last. Here with 4,000 of MNIST's digits for training and 1,000 held out
(`tasks.digits`), beside the same networks reading a row of 28 pixels a step.
"""

import functools
import pathlib
import sys

import jax
import numpy as np

from bptt_jax import cells, estimators, models, plots, tasks

HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE.parent))

from _curves import adam, trained  # noqa: E402
from _results import Results, quick  # noqa: E402
from _training import held_out, wrong  # noqa: E402

CLASSES = 10
PERMUTATION = 0  # seed of the order of pixels
TASKS = {
    "rows": dict(pixels=False),
    "permuted": dict(pixels=True, permute_seed=PERMUTATION),
    "pixels": dict(pixels=True),
}


def irnn(n_in: int, hidden: int):
    """As in the paper: rectified units, W = I, b = 0, inputs' weights of deviation 0.001."""
    return cells.elman(
        n_in, hidden, activation=jax.nn.relu, recurrent_kernel_init=cells.identity,
        kernel_init=jax.nn.initializers.normal(1e-3),
    )  # fmt: skip


NETWORKS = {
    "Elman": cells.elman,
    "IRNN": irnn,
    "LSTM": cells.lstm,
    "GRU": cells.gru,
    "LSTM, chrono": functools.partial(cells.lstm, chrono=784),
}
ROWS = dict(
    hidden=96, batch=32, updates=1875, every=125, seeds=3, times={},
    rates={"Elman": 1e-3, "IRNN": 1e-3, "LSTM": 3e-3, "GRU": 3e-3},
)  # fmt: skip
PIXELS = dict(
    hidden=64, batch=16, updates=1500, every=125, seeds=1,
    times={"IRNN": 4},  # as many updates, since each costs a third of the LSTM's
    rates={"Elman": 1e-3, "IRNN": 1e-5, "LSTM": 3e-3, "GRU": 3e-3},
)  # fmt: skip
WITH_CHRONO = dict(PIXELS, rates={**PIXELS["rates"], "LSTM, chrono": 3e-3})
SETTINGS = dict(rows=ROWS, permuted=PIXELS, pixels=WITH_CHRONO)
QUICK = dict(rows=dict(ROWS, hidden=8, updates=50, every=50, seeds=1,
                       rates={"IRNN": 1e-3, "GRU": 3e-3}))  # fmt: skip


def training(kind: str, name: str, seed: int, s: dict) -> dict:
    task = tasks.digits(batch=s["batch"], seed=seed, **TASKS[kind])
    cell = NETWORKS[name](task.n_in, s["hidden"])
    model = models.features((cell,), CLASSES, s["hidden"])
    updates, every = (s[k] * s["times"].get(name, 1) for k in ("updates", "every"))
    return trained(
        task, model, estimators.exact(model, task.objective),
        adam(s["rates"][name], updates), held_out(model, task, wrong),
        updates=updates, every=every, seed=seed,
    )  # fmt: skip


def drawn(kind: str, parts: dict, s: dict):
    series = {}
    for name in s["rates"]:
        curves = [parts[f"{kind}, {name}, seed {k}"] for k in range(s["seeds"])]
        series[name] = (
            np.array(curves[0]["updates"]),
            100 * np.array([c["held_out"] for c in curves]),
        )
    levels = {"5 %": 5.0} if kind == "rows" else {"chance": 90.0}
    return plots.curves(
        series,
        label="update",
        unit="held-out error, %",
        levels=levels,
        log=kind == "rows",
    )


def main():
    short = quick(__doc__, "by rows, two small networks, 50 updates")
    settings = QUICK if short else SETTINGS
    jobs = [(kind, name, seed) for kind, s in settings.items()
            for seed in range(s["seeds"]) for name in s["rates"]]  # fmt: skip
    results = Results(HERE, settings, len(jobs), short)
    last: dict = {}
    for kind, name, seed in jobs:
        compute = functools.partial(training, kind, name, seed, settings[kind])
        found = results.part(
            f"{kind}, {name}, seed {seed}", compute,
            "{last:.1%} wrong, {cpu_ms:.1f} ms an update",
        )  # fmt: skip
        last.setdefault(kind, {}).setdefault(name, []).append(100 * found["last"])
    if not short:
        for kind, s in settings.items():
            drawn(kind, results.parts, s).savefig(HERE / f"{kind}.png", dpi=120)
    results.finish(
        task=tasks.digits().record,
        percent_wrong={
            kind: {name: round(float(np.mean(each)), 2) for name, each in found.items()}
            for kind, found in last.items()
        },
    )


if __name__ == "__main__":
    main()
