# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---
# %% [markdown]
# # Your own data: from a file to a prediction
#
# A classification: recordings of nine speakers, of unequal lengths, and who speaks? They are read
# by `data.read`, made into a task by `tasks.arrays`, and five networks are trained on them as one
# program, then five that read in both directions of time. Then a forecast: how many passengers next
# month? All of it takes about two minutes on two CPU cores, much of it compilation.

# %%
# Takes about a minute where the package must be installed, else about two seconds.
import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version

# Where there is no clone of the repository in the folder above (as on Colab), put the
# path of one here, or another address that pip takes.
PACKAGE = ".."
if importlib.util.find_spec("bptt_jax") is None:
    pinned = f"jax=={version('jax')}"  # the runtime's own JAX stays as it is
    install = [sys.executable, "-m", "pip", "install", "-q", PACKAGE, pinned]
    subprocess.run(install, check=True)
QUICK = os.environ.get("BPTT_JAX_QUICK") == "1"  # small sizes, as the tests run it

import jax

print("JAX", jax.__version__, jax.devices())

# %% [markdown]
# The files come with the package aeon (BSD-3-Clause), which is installed without what it
# depends on, and not imported.

# %%
import pathlib

if importlib.util.find_spec("aeon") is None:
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "aeon"]
    subprocess.run(install, check=True)
aeon = importlib.util.find_spec("aeon")
FILES = pathlib.Path(aeon.submodule_search_locations[0]) / "datasets" / "data"

# %% [markdown]
# ## Who speaks?
#
# [Japanese Vowels](https://archive.ics.uci.edu/dataset/128/japanese+vowels) (Kudo, Toyama and
# Shimbo 1999): nine men say two vowels, 12 cepstral coefficients a frame, 7 to 29 frames. 270
# utterances are for training, 370 for the test. What a file of sequences looks like to this
# package is said by `bptt-jax data FILE`, too.

# %%
import tempfile

import jax.numpy as jnp
import numpy as np
import optax

from bptt_jax import (
    cells,
    data,
    estimators,
    layers,
    models,
    plots,
    progress,
    sweep,
    tasks,
    train,
    wholes,
)

vowels = FILES / "JapaneseVowels"
known = data.read(vowels / "JapaneseVowels_TRAIN.ts")
unknown = data.read(vowels / "JapaneseVowels_TEST.ts")
for name, part in ("training", known), ("test", unknown):
    lengths = [len(x) for x in part.inputs]
    print(
        f"{name}: {len(lengths)} sequences of {min(lengths)} to {max(lengths)} steps, "
        f"{len(part.features)} features, {len(set(part.targets))} speakers"
    )

# %% [markdown]
# The first two coefficients of one utterance of each of two speakers:

# %%
plots.curves(
    {
        f"speaker {known.targets[i]}, coefficient {k}": (
            np.arange(len(known.inputs[i])),
            known.inputs[i][None, :, k],
        )
        for i in (0, 40)
        for k in (0, 1)
    },
    unit="cepstral coefficient",
    label="frame",
)

# %% [markdown]
# A tenth of the 270 is held out, every tenth utterance, three of each speaker; the 370 are not
# touched before the end. 243 utterances are few for a network of 37,000 weights, so it is
# regularised: dropout of the last state, weight decay, and noise on the inputs, which is an
# augmentation of the batch. `Stream.batch` is given a key for such things. How much of each
# was chosen by cross-validation within the 270.

# %%
UNITS, STEPS, SEEDS = (8, 6, 2) if QUICK else (100, 360, 5)
held_out = np.arange(len(known.inputs)) % 10 == 9
task = tasks.arrays(known.inputs, known.targets, batch=27, held_out=held_out)


def noisy(item, key):
    batch = task.train.batch(item, key)
    noise = jax.random.normal(key, jnp.shape(batch.inputs))
    return batch._replace(inputs=batch.inputs + 0.8 * noise)


cell = cells.gru(task.n_in, UNITS)
networks = {
    "one direction": models.features(cell, task.n_out, UNITS, dropout=0.5),
    "both directions": models.sections(
        wholes.ends(cell), layers.dropout(0.5), layers.dense(2 * UNITS, task.n_out)
    ),
}
print("accuracy of", task.metrics["accuracy"].baselines, "held out")

# %% [markdown]
# The second network has another GRU that reads from the last frame to the first, and its readout
# sees the last state of each (`wholes.ends`).
#
# Five seeds are five networks in one program: other initial weights, other dropout, other
# noise; the order of the data is one for all. `buckets=()` has all batches run as many steps as
# the longest one: there is less to compile, which is most of the time that this takes.

# %%
folder = pathlib.Path(tempfile.mkdtemp())
falling = optax.cosine_decay_schedule(1.0, STEPS)
seeds = sweep.grid(lr=[3e-3], seed=range(SEEDS))
one = jax.sharding.Mesh(jax.devices()[:1], ("seeds",))  # a device for all of them


def trained(name):
    training = sweep.training(
        task._replace(train=task.train._replace(batch=noisy, buckets=())),
        networks[name],
        estimators.exact(networks[name], task.objective),
        lambda lr: optax.adamw(lambda step: lr * falling(step), weight_decay=1e-2),
    )
    return sweep.run(
        training,
        seeds,
        steps=STEPS,
        mesh=one,
        lanes=SEEDS,
        keep=SEEDS,
        out=folder / name,
        progress=progress.silent,
    )


results = {name: trained(name) for name in networks}
result = results["one direction"]
rows = result.table.to_pylist()
at = sorted({row["step"] for row in rows})
losses = {
    name: [[r[name] for r in rows if r["seed"] == seed] for seed in range(SEEDS)]
    for name in ("loss", "held_out")
}
plots.curves(
    {
        name: (at, np.array(each))
        for name, each in zip(("training", "held out"), losses.values())
    },
    unit="cross-entropy",
    levels={"class frequencies": task.baselines["class frequencies"]},
    log=True,
)

# %% [markdown]
# The training loss is that of noisy inputs and with dropout. What a training leaves is a
# `train.Run`, which predicts; here are five of them. Now the 370, read once:


# %%
speakers = {
    name: [one.load(model=network, task=task) for one in results[name].best]
    for name, network in networks.items()
}
for name, each in speakers.items():
    found = [run.evaluate(unknown.inputs, unknown.targets) for run in each]
    accuracy = sorted(figures["accuracy"] for figures in found)
    print(f"{name}, right of the 370:", " ".join(f"{a:.3f}" for a in accuracy))
    print(f"{name}, the median of {SEEDS} seeds: {np.median(accuracy):.3f}")

# %% [markdown]
# Each network was trained on 243 of the 270.
#
# A prediction takes any sequences, and gives the labels of the file:

# %%
some = unknown.inputs[::60]
print("said:", speakers["both directions"][0].predict(some))
print("true:", unknown.targets[::60])
print("by:  ", speakers["both directions"][0].predict_proba(some).max(1).round(2))

# %% [markdown]
# ## How many next month?
#
# A series goes the same way, by `tasks.windows`. This one is a classic (Box and Jenkins 1976):
# airline passengers of 144 months, in thousands. What is predicted is the growth over the same
# month of the year before, from the twelve months before it; the last three years are held out.

# %%
HELD_OUT, BEFORE = 36, 12
months = data.read(FILES / "Airline" / "Airline.csv", time="Date").inputs[0]
passengers = months[:, -1].astype(np.float64)
growth = np.log(passengers[12:] / passengers[:-12])
task = tasks.windows(growth, T=BEFORE, horizon=1, batch=32, held_out=HELD_OUT)
model = models.features(cells.gru(task.n_in, 8), task.n_out, 8)
updates = 4 if QUICK else 200
falling = optax.cosine_decay_schedule(1e-2, updates)
forecasters = [
    train.run(
        task,
        model,
        estimators.exact(model, task.objective),
        optax.adamw(falling),
        train.RunOptions(updates=updates),
        folder / f"airline-{seed}",
        seed=seed,
        progress=progress.silent,
    )
    for seed in range(1 if QUICK else 5)
]

# %% [markdown]
# Beside them three rules that learn nothing. The mean absolute error, in thousands of passengers:

# %%
first = len(growth) - HELD_OUT
windows = np.stack([growth[t - BEFORE : t] for t in range(first, len(growth))])
year_ago, true = passengers[first:-12], passengers[first + 12 :]
by_network = [year_ago * np.exp(run.predict(windows)[:, 0]) for run in forecasters]
by_rule = {
    "as the month before": passengers[first + 11 : -1],
    "as a year ago": year_ago,
    "a year ago, and last month's growth": year_ago * np.exp(growth[first - 1 : -1]),
}
for name, forecast in by_rule.items():
    print(f"{np.abs(forecast - true).mean():5.1f}  {name}")
errors = sorted(np.abs(forecast - true).mean() for forecast in by_network)
print(", ".join(f"{error:.1f}" for error in errors), " networks of 8 units, by seed")
plots.curves(
    {
        "passengers": (np.arange(HELD_OUT), true[None]),
        "networks": (np.arange(HELD_OUT), np.array(by_network)),
        "a year ago, and last month's growth": (
            np.arange(HELD_OUT),
            by_rule["a year ago, and last month's growth"][None],
        ),
    },
    unit="thousand passengers",
    label="month held out",
)

# %% [markdown]
# Most of what is won over "as a year ago" is won by looking at growth, which takes no network; what
# a network adds to the best rule is small, on 96 windows to learn from.
