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

import numpy as np

from bptt_jax import cells, estimators, layers, models, plots, tasks, wholes

HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE.parent))

from _curves import adam, trained  # noqa: E402
from _results import Results, quick  # noqa: E402
from _training import held_out, wrong  # noqa: E402

FEATURES, CLASSES = 13, 10
EVERY = 75  # updates of an epoch
SETTINGS = dict(hidden=64, batch=32, epochs=20, rate=3e-3, seeds=3)
QUICK = dict(hidden=8, batch=32, epochs=1, rate=3e-3, seeds=1)


def network(both: bool, make: Callable, hidden: int):
    """The last state, or that of each direction side by side, through one readout."""
    cell = make(FEATURES, hidden)
    if not both:
        return models.features(cell, CLASSES, hidden)
    return models.sections(wholes.ends(cell), layers.dense(2 * hidden, CLASSES))


NETWORKS = {
    "Elman": (False, cells.elman),
    "LSTM": (False, cells.lstm),
    "GRU": (False, cells.gru),
    "Elman, both ways": (True, cells.elman),
    "LSTM, both ways": (True, cells.lstm),
    "GRU, both ways": (True, cells.gru),
}


def training(name: str, seed: int, s: dict) -> dict:
    task = tasks.spoken_digits(batch=s["batch"], seed=seed)
    model = network(*NETWORKS[name], s["hidden"])
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
