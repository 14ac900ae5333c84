"""Spoken digits of 6 to 92 frames: do both directions of time help?

    python experiments/spoken_digits/run.py            minutes
    python experiments/spoken_digits/run.py --quick    seconds, writes nothing

2,400 utterances for training and 600 held out (`tasks.spoken_digits`), padded to 92 frames
under a mask. The class is read from the last state: of a network that runs forward, at an
utterance's last frame; of one that runs both ways, there and at its first frame.
"""

import functools
import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import cells, estimators, layers, models, plots, tasks, unrolls
from bptt_jax.types import Estimator, Gradient

HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE.parent))

from _curves import adam, trained  # noqa: E402
from _results import Results, quick  # noqa: E402
from _training import held_out, wrong  # noqa: E402

FEATURES, CLASSES = 13, 10
EVERY = 75  # updates of an epoch
SETTINGS = dict(hidden=64, batch=32, epochs=20, rate=3e-3, seeds=3)
QUICK = dict(hidden=8, batch=32, epochs=1, rate=3e-3, seeds=1)


class BothWays(NamedTuple):
    """`init(key) -> params` and `logits(params, batch) -> [B, 10]`."""

    init: Callable
    logits: Callable


def both_ways(make: Callable, hidden: int) -> BothWays:
    """The last state of each direction, side by side, through one readout."""
    cell, readout = make(FEATURES, hidden), layers.dense(2 * hidden, CLASSES)
    run = models.bidirectional(cell, cell)

    def init(key):
        to_end, to_start, out = jax.random.split(key, 3)
        return (cell.init(to_end), cell.init(to_start)), readout.init(out)

    def logits(params, batch):
        pair, out = params
        count = batch.inputs.shape[1]
        carry = tuple(cell.init_carry(p, (count,)) for p in pair)
        _, ys = run(pair, carry, *batch)
        # Under the mask a state is held: the last output is that of the last frame.
        ends = jnp.concatenate([ys[-1, :, :hidden], ys[0, :, hidden:]], -1)
        return unrolls.bptt(readout, out, (), ends[None])[1][0]

    return BothWays(init, logits)


def mean_of(model: BothWays, objective: Callable) -> Callable:
    def mean(params, batch):
        labels = batch.side.targets.targets[-1]
        return objective(model.logits(params, batch), labels).mean()

    return mean


def exact(model: BothWays, objective: Callable) -> Estimator:
    """`estimators.exact` of two unrolls: each of them has its gradient derived by hand."""
    value_and_grad = jax.value_and_grad(mean_of(model, objective))

    def grad(params, state, batch, key):
        del key
        rows = jnp.float32(batch.inputs.shape[1])
        return Gradient(*value_and_grad(params, batch), state, rows, {})

    return Estimator(lambda params, batch: (), grad)


def held_out_of(task, model: BothWays, objective: Callable) -> Callable:
    """`_training.held_out` of two unrolls."""
    items = task.held_out.read(0, task.held_out.length)
    mean = mean_of(model, objective)

    @jax.jit
    def score(params):
        one = lambda item: mean(params, task.held_out.batch(item, None))
        return jax.lax.map(one, items).mean()

    return lambda params: float(score(params))


NETWORKS = {
    "Elman": (False, cells.elman),
    "LSTM": (False, cells.lstm),
    "GRU": (False, cells.gru),
    "Elman, both ways": (True, cells.elman),
    "LSTM, both ways": (True, cells.lstm),
    "GRU, both ways": (True, cells.gru),
}


def training(name: str, seed: int, s: dict) -> dict:
    both, make = NETWORKS[name]
    task = tasks.spoken_digits(batch=s["batch"], seed=seed)
    if both:
        model = both_ways(make, s["hidden"])
        estimator = exact(model, task.objective)
        score = held_out_of(task, model, wrong)
    else:
        cell = make(FEATURES, s["hidden"])
        model = models.features((cell,), CLASSES, s["hidden"])
        estimator = estimators.exact(model, task.objective)
        score = held_out(model, task, wrong)
    updates = EVERY * s["epochs"]
    return trained(
        task, model, estimator, adam(s["rate"], updates),
        score, updates=updates, every=EVERY, seed=seed,
    )  # fmt: skip


def main():
    short = quick(__doc__, "one small network, one epoch")
    s = QUICK if short else SETTINGS
    names = ["GRU, both ways"] if short else list(NETWORKS)
    results = Results(HERE, s, len(names) * s["seeds"], short)
    curves: dict = {name: [] for name in names}
    for seed in range(s["seeds"]):
        for name in names:
            compute = functools.partial(training, name, seed, s)
            found = results.part(
                f"{name}, seed {seed}", compute,
                "{last:.2%} wrong, {cpu_ms:.1f} ms an update",
            )  # fmt: skip
            curves[name].append([100 * e for e in found["held_out"]])
    if not short:
        epochs = np.arange(1, s["epochs"] + 1)
        plots.curves(
            {name: (epochs, np.array(each)) for name, each in curves.items()},
            label="epoch", unit="held-out error, %", levels={"2 %": 2.0}, log=True,
        ).savefig(HERE / "spoken_digits.png", dpi=120)  # fmt: skip
    last = {name: [curve[-1] for curve in each] for name, each in curves.items()}
    results.finish(
        task=tasks.spoken_digits().record,
        percent_wrong={
            n: dict(mean=round(float(np.mean(e)), 2)) for n, e in last.items()
        },
    )


if __name__ == "__main__":
    main()
