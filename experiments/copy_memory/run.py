"""Do forget biases drawn for long times let an LSTM copy what it saw long ago?

    python experiments/copy_memory/run.py            about a quarter of an hour on a core
    python experiments/copy_memory/run.py --quick    seconds, writes nothing

Tallec, Ollivier (2018), "Can recurrent neural networks warp time?" (arXiv:1804.11188):
copy memory for an LSTM whose forget biases are all 1, and one whose forget biases are
log U[1, T_max - 1], those of the input gates their negatives (chrono initialisation).
Without a memory nothing better than 10 ln 8 / (T + 20) nats a step can be had.
"""

import functools
import pathlib
import sys

import numpy as np
import optax

sys.path.append(str(pathlib.Path(__file__).parent.parent))

import _results
import _training

from bptt_jax import cells, estimators, plots, tasks

HERE = pathlib.Path(__file__).parent
LENGTHS, SEEDS, UPDATES, EVERY = (50, 100), 3, 4000, 200
H, BATCH, RATE, CLIP = 64, 20, 1e-2, 1.0
SOLVED = 0.1  # of the loss without a memory
OPTIMIZER = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(RATE))
BIASES = {
    "forget bias 1": lambda T: cells.lstm(10, H),
    "chrono": lambda T: cells.lstm(10, H, chrono=3 * T // 2),
}


def trained(name: str, T: int, seed: int, updates: int, every: int) -> dict:
    task, held_out = (
        tasks.copy_memory(batch=BATCH, T=T),
        tasks.copy_memory(batch=200, T=T),
    )
    model = _training.symbols(10, BIASES[name](T), H, 9)
    return _training.trained(
        task, model, estimators.exact(model, task.objective), OPTIMIZER,
        _training.held_out(model, held_out, task.objective, 1),
        updates=updates, every=every, seed=seed,
        solved=SOLVED * task.baselines["no memory"],
    )  # fmt: skip


def figures(found: dict):
    steps = np.arange(EVERY, UPDATES + 1, EVERY)
    for T in LENGTHS:
        yield T, plots.curves(
            {
                name: (steps, _training.held(found[name, T], len(steps)))
                for name in BIASES
            },
            label="update", unit=f"held-out cross-entropy, nats a step, T = {T}",
            levels={"no memory": tasks.copy_memory(T=T).baselines["no memory"]},
        )  # fmt: skip


def main():
    quick = _results.quick(__doc__, "chrono, T = 10, a seed, 20 updates")
    names, lengths, seeds = [*BIASES], LENGTHS, range(SEEDS)
    updates, every = UPDATES, EVERY
    if quick:
        names, lengths, seeds, updates, every = ["chrono"], (10,), range(1), 20, 10
    settings = dict(
        hidden=H, batch=BATCH, rate=RATE, clip=CLIP, updates=updates, every=every,
        solved=SOLVED,
    )  # fmt: skip
    total = len(names) * len(lengths) * len(seeds)
    results = _results.Results(HERE, settings, total, quick)
    found: dict = {}
    for T in lengths:
        for seed in seeds:
            for name in names:
                part = results.part(
                    f"{name}, T = {T}, seed {seed}",
                    functools.partial(trained, name, T, seed, updates, every),
                    "solved after {solved_at}",
                )
                found.setdefault((name, T), []).append(part)
    summary = {
        f"{name}, T = {T}": dict(
            no_memory=round(tasks.copy_memory(T=T).baselines["no memory"], 4),
            median=float(np.median([run["curve"][-1] for run in runs])),
            least=min(min(run["curve"]) for run in runs),
            solved=_training.share_solved(runs),
        )
        for (name, T), runs in found.items()
    }
    results.finish(summary=summary)
    if not quick:
        for T, drawing in figures(found):
            drawing.savefig(HERE / f"copy-{T}.png", dpi=120)


if __name__ == "__main__":
    main()
