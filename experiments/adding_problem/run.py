"""Which cells learn to add two numbers that were marked long ago?

    python experiments/adding_problem/run.py            about a quarter of an hour on a core
    python experiments/adding_problem/run.py --quick    seconds, writes nothing

Le, Jaitly, Hinton (2015), "A simple way to initialize recurrent networks of rectified
linear units" (arXiv:1504.00941): the adding problem for a tanh network, a network of
rectified linear units whose recurrent matrix begins as the identity (IRNN), LSTM and GRU.
Predicting 1 costs 1/6.
"""

import functools
import pathlib
import sys

import jax
import numpy as np
import optax

sys.path.append(str(pathlib.Path(__file__).parent.parent))

import _results
import _training

from bptt_jax import cells, estimators, models, plots, tasks

HERE = pathlib.Path(__file__).parent
LENGTHS, SEEDS, UPDATES, EVERY = (50, 100, 200), 5, 5000, 200
H, BATCH, CLIP, SOLVED = 32, 20, 1.0, 0.01
HUNDREDTH = jax.nn.initializers.normal(0.01)
IRNN = cells.elman(
    2, H, activation=jax.nn.relu, recurrent_kernel_init=cells.identity,
    kernel_init=HUNDREDTH,
)  # fmt: skip
CELLS = {  # with their learning rates
    "Elman": (cells.elman(2, H), 1e-3),
    "IRNN": (IRNN, 1e-3),
    "LSTM": (cells.lstm(2, H), 1e-2),
    "GRU": (cells.gru(2, H), 1e-2),
}


@functools.cache
def adam(rate: float):
    return optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(rate))


def trained(name: str, T: int, seed: int, updates: int, every: int) -> dict:
    cell, rate = CELLS[name]
    task, model = tasks.adding(batch=BATCH, T=T), models.features((cell,), 1, H)
    held_out = tasks.adding(batch=500, T=T)
    return _training.trained(
        task, model, estimators.exact(model, task.objective), adam(rate),
        _training.held_out(model, held_out, task.objective, 2),
        updates=updates, every=every, seed=seed, solved=SOLVED,
    )  # fmt: skip


def figures(found: dict, solved: dict):
    steps, longest = np.arange(EVERY, UPDATES + 1, EVERY), LENGTHS[-1]
    rows = {name: (list(each), list(each.values())) for name, each in solved.items()}
    by_length = plots.shares(
        rows, label="steps of a sequence, T", unit="seeds that solve it"
    )
    over_updates = plots.curves(
        {
            name: (steps, _training.held(found[name, longest], len(steps)))
            for name in solved
        },
        label="update", unit=f"held-out squared error, T = {longest}",
        levels={"predicts 1": 1 / 6}, log=True,
    )  # fmt: skip
    return {"adding_problem": by_length, "curves": over_updates}


def main():
    quick = _results.quick(__doc__, "a cell, 20 steps, a seed, 20 updates")
    names, lengths, seeds = [*CELLS], LENGTHS, range(SEEDS)
    updates, every = UPDATES, EVERY
    if quick:
        names, lengths, seeds, updates, every = ["IRNN"], (20,), range(1), 20, 10
    settings = dict(
        hidden=H, batch=BATCH, clip=CLIP, rates={n: rate for n, (_, rate) in CELLS.items()},
        updates=updates, every=every, solved=SOLVED,
    )  # fmt: skip
    total = len(names) * len(lengths) * len(seeds)
    results = _results.Results(HERE, settings, total, quick)
    found = _training.by_seed(
        results, names, lengths, seeds,
        lambda name, T, seed: trained(name, T, seed, updates, every),
    )  # fmt: skip
    solved = _training.shares_solved(found)
    results.finish(solved=solved)
    if not quick:
        for name, drawing in figures(found, solved).items():
            drawing.savefig(HERE / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
