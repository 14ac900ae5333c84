"""Does clipping the gradient's norm let a plain network learn longer sequences?

    python experiments/clipping/run.py            about half an hour on a busy core
    python experiments/clipping/run.py --quick    seconds, writes nothing

Pascanu, Mikolov, Bengio (2013), "On the difficulty of training recurrent neural networks"
(arXiv:1211.5063): temporal order, a tanh network of 50 units, stochastic gradient descent
at 0.01 with batches of 20; by itself, with gradients clipped at norm 1, and clipped with
their regulariser Ω, which keeps the gradient from vanishing.
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

from bptt_jax import cells, diagnose, estimators, plots, tasks

HERE = pathlib.Path(__file__).parent
LENGTHS, SEEDS, UPDATES, EVERY = (20, 30, 50), 5, 30_000, 500
H, BATCH, RATE, CUTOFF, DEVIATION, ALPHA = 50, 20, 0.01, 1.0, 0.1, 2.0
SOLVED = 0.01  # of 1000 held-out sequences
NORMAL = jax.nn.initializers.normal(DEVIATION)
CELL = cells.elman(6, H, kernel_init=NORMAL, recurrent_kernel_init=NORMAL)
MODEL = _training.symbols(6, CELL, H, 4, NORMAL)
PLAIN = optax.sgd(RATE)
CLIPPED = optax.chain(optax.clip_by_global_norm(CUTOFF), optax.sgd(RATE))


OMEGA = functools.partial(diagnose.regularised, alpha=ALPHA)
METHODS = {
    "SGD": (estimators.exact, PLAIN),
    "SGD, clipped": (estimators.exact, CLIPPED),
    "SGD, clipped, Ω": (OMEGA, CLIPPED),
}


def trained(method: str, T: int, seed: int, updates: int, every: int) -> dict:
    gradient, optimizer = METHODS[method]
    task = tasks.temporal_order(batch=BATCH, T=T)
    held_out = tasks.temporal_order(batch=500, T=T)
    return _training.trained(
        task, MODEL, gradient(MODEL, task.objective), optimizer,
        _training.held_out(MODEL, held_out, _training.wrong, 2),
        updates=updates, every=every, seed=seed, solved=SOLVED,
    )  # fmt: skip


def figures(found: dict, solved: dict) -> dict:
    steps, T = np.arange(EVERY, UPDATES + 1, EVERY), LENGTHS[1]
    rows = {name: (list(each), list(each.values())) for name, each in solved.items()}
    by_length = plots.shares(
        rows, label="steps of a sequence, T", unit="seeds that solve it"
    )
    over_updates = plots.curves(
        {name: (steps, _training.held(found[name, T], len(steps))) for name in METHODS},
        label="update", unit=f"held-out error, T = {T}", levels={"chance": 0.75},
    )  # fmt: skip
    return {"clipping": by_length, "errors": over_updates}


def main():
    quick = _results.quick(__doc__, "Ω, 20 steps, a seed, 40 updates")
    methods, lengths, seeds = [*METHODS], LENGTHS, range(SEEDS)
    updates, every = UPDATES, EVERY
    if quick:
        methods, lengths, seeds = methods[-1:], (20,), range(1)
        updates, every = 40, 20
    settings = dict(
        hidden=H, batch=BATCH, rate=RATE, cutoff=CUTOFF, deviation=DEVIATION,
        alpha=ALPHA, updates=updates, every=every, solved=SOLVED,
    )  # fmt: skip
    total = len(methods) * len(lengths) * len(seeds)
    results = _results.Results(HERE, settings, total, quick)
    found = _training.by_seed(
        results, methods, lengths, seeds,
        lambda name, T, seed: trained(name, T, seed, updates, every),
    )  # fmt: skip
    solved = _training.shares_solved(found)
    results.finish(solved=solved)
    if not quick:
        for name, drawing in figures(found, solved).items():
            drawing.savefig(HERE / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
