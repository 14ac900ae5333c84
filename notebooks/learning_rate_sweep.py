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
# # Many trainings as one program: a learning-rate sweep
#
# A training is a pure function of its hyperparameters and its key. So many trainings are
# one `jax.vmap`: compiled once, run together. This notebook does it by hand, and then with
# `bptt_jax.sweep`, which adds what a real sweep needs: groups that fit into memory,
# configurations that diverge, choices that are no numbers, early stopping, and a folder
# from which a sweep that was stopped goes on. All of it takes about a minute on
# two CPU cores.

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

# %%
import functools
import pathlib
import tempfile

import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from bptt_jax import cells, estimators, models, plots, sweep, tasks

T, UNITS, BATCH, STEPS = (10, 4, 4, 10) if QUICK else (30, 16, 16, 600)
task = tasks.adding(batch=BATCH, T=T)
cell = cells.gru(2, UNITS)
model = models.features((cell,), 1, UNITS)
estimator = estimators.exact(model, task.objective)

# %% [markdown]
# ## By hand
#
# The problem is the adding problem: two of T numbers are marked, and their sum is to be said
# at the end; whoever says 1 has a mean squared error of 1/6.
#
# A training is a `lax.scan` over updates. Everything that a sweep varies is an argument of
# it: here the learning rate and the key, from which weights and data come. `optax.adam`
# takes a traced number as its rate.


# %%
def train(lr, key, bias=0.0):
    """Losses `[STEPS]` of one training, and its parameters."""
    k_init, k_data = jax.random.split(key)
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(lr))

    def update(state, step):
        params, opt_state = state
        batch = task.train.batch(step, jax.random.fold_in(k_data, step))
        loss, grads, *_ = estimator.grad(params, (), batch, k_data)
        updates, opt_state = adam.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), loss

    core, readout = model.init(k_init)
    b = core["b"].at[UNITS : 2 * UNITS].add(bias)  # of the gate z; gates are r, z, n
    params = core | dict(b=b), readout
    state, losses = lax.scan(update, (params, adam.init(params)), jnp.arange(STEPS))
    return losses, state[0]


# %% [markdown]
# Eight rates and four keys: `vmap` over keys within `vmap` over rates, one compiled program
# for 32 networks. It takes about fifteen seconds.

# %%
rates = np.geomspace(1e-4, 1.0, 3 if QUICK else 8).astype(np.float32)
keys = jax.random.split(jax.random.key(0), 2 if QUICK else 4)
over_keys = jax.vmap(train, (None, 0))
losses, params = jax.jit(jax.vmap(over_keys, (0, None)))(rates, keys)
losses = np.asarray(losses)  # [rates, keys, steps]
print("one program trained", losses.shape[0] * losses.shape[1], "networks")
width = STEPS // 10
smooth = losses.reshape(*losses.shape[:2], 10, width).mean(-1)
at = width * np.arange(1, 11)
plots.curves(
    {f"lr {lr:.2g}": (at, each) for lr, each in zip(rates[::2], smooth[::2])},
    unit="mean squared error",
    levels={"says 1": 1 / 6},
    log=True,
)

# %% [markdown]
# These are every other rate; bands go from the best seed to the worst. What comes out at
# the end, over the rate: too small a rate has not arrived, too large a one does not arrive.

# %%
last = smooth[..., -1]  # [rates, keys]
plots.against(
    np.repeat(rates, len(keys)),
    last.ravel(),
    label="learning rate",
    unit="mean squared error, last tenth of training",
)

# %% [markdown]
# The numbers of one of them are those that it has alone, to rounding. It takes about five
# seconds.

# %%
at_rate = int(np.argmin(np.median(last, 1)))
alone = np.asarray(jax.jit(train)(rates[at_rate], keys[0])[0])
together = losses[at_rate, 0]
for step in (0, 9, STEPS - 1):
    print(
        f"step {step + 1:3}: alone {alone[step]:.6f}, in the sweep {together[step]:.6f}"
    )

# %% [markdown]
# ## Two hyperparameters
#
# Anything that is a number can be mapped, initial weights too: here the bias of the GRU's
# gate z, which keeps the state, beside the rate. It takes about ten seconds.

# %%
biases = np.float32([0, 2]) if QUICK else np.float32([-2, 0, 2, 4])
lrs = np.geomspace(1e-3, 0.3, 2 if QUICK else 6).astype(np.float32)
grid = np.stack(np.meshgrid(lrs, biases), -1).reshape(-1, 2)
over_grid = jax.jit(jax.vmap(train, (0, None, 0)))
losses, _ = over_grid(grid[:, 0], keys[0], grid[:, 1])
plots.heat_map(
    grid[:, 0],
    grid[:, 1],
    np.log10(np.asarray(losses)[:, -width:].mean(1)),
    labels=("learning rate", "initial bias of gate z"),
    unit="log10 of the mean squared error",
)

# %% [markdown]
# ## With `bptt_jax.sweep`
#
# A `Space` is a table of configurations; columns that are numbers are arguments of the
# compiled program, `sweep.static` holds choices that are not (a cell, a size), each of which
# is compiled for. `sweep.training` makes a training of a task, a model and a way to the
# gradient; `sweep.run` trains all rows. The folder holds everything, so that a sweep that
# was stopped goes on where it was. This takes about fifteen seconds.
#
# `lanes=` says how many configurations run at a time; without it, that is measured.

# %%
folder = pathlib.Path(tempfile.mkdtemp())


def optimizer(lr):
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(lr))


@functools.cache
def training(make):
    model = models.features((make(2, UNITS),), 1, UNITS)
    return sweep.training(
        task, model, estimators.exact(model, task.objective), optimizer
    )


space = sweep.product(
    sweep.static(make=[cells.gru] if QUICK else [cells.gru, cells.elman]),
    sweep.grid(lr=[float(lr) for lr in lrs], seed=range(2 if QUICK else 4)),
)
print(space.size, "configurations of", list(space.columns))
run = functools.partial(sweep.run, training, space, steps=STEPS, lanes=8)
result = run(out=folder / "cells", evaluate_every=STEPS // 5)
for best in result.best:
    print(f"held-out error {best.score:.4f}", best.values)

# %% [markdown]
# The result is a table (Arrow; in the folder as Parquet) with a row for each configuration
# and evaluation.

# %%
rows = result.table.to_pylist()
ends = [row for row in rows if row["step"] == STEPS]
print(result.table.num_rows, "rows of", result.table.column_names)
plots.against(
    [row["lr"] for row in ends],
    [row["held_out"] for row in ends],
    by=[row["make"] for row in ends],
    label="learning rate",
    unit="held-out mean squared error",
)

# %% [markdown]
# Asked again, nothing is trained: the folder has it all. And the parameters of the best are
# there.

# %%
again = run(out=folder / "cells", evaluate_every=STEPS // 5)
print("the same table:", again.table.equals(result.table))
best = result.best[0]
of_best = models.features((cells.gru(2, UNITS),), 1, UNITS)
shapes = jax.eval_shape(of_best.init, jax.random.key(0))
print(jax.tree.map(jnp.shape, sweep.parameters(best.path, shapes)))

# %% [markdown]
# ## Giving up the worse ones early
#
# Successive halving trains all configurations for a little, the best third three times as
# long, the best third of these again (Jamieson, Talwalkar 2016). Here the rates are drawn at
# random. About fifteen seconds.

# %%
drawn = sweep.random(
    4 if QUICK else 27,
    jax.random.key(1),
    lr=sweep.log_uniform(1e-4, 1.0),
    seed=sweep.integers(0, 1000),
)
halved = sweep.run(
    training(cells.gru),
    drawn,
    steps=STEPS,
    lanes=9,
    out=folder / "halving",
    halving=sweep.halving(eta=3),
    evaluate_every=STEPS // 9 or 1,
)
ends = {(row["config"], row["rung"]): row for row in halved.table.to_pylist()}.values()
steps_of = {rung: max(r["step"] for r in ends if r["rung"] == rung)
            for rung in sorted({row["rung"] for row in ends})}  # fmt: skip
taken, before = 0, 0
for rung, steps in steps_of.items():
    rates_there = [row["lr"] for row in ends if row["rung"] == rung]
    taken, before = taken + len(rates_there) * (steps - before), steps
    print(
        f"{len(rates_there):2} trained to step {steps:3},"
        f" rates from {min(rates_there):.2g} to {max(rates_there):.2g}"
    )
print(f"steps in all: {taken}, without halving {drawn.size * STEPS}")
best = halved.best[0]
print(f"best: held-out error {best.score:.4f} at rate {best.values['lr']:.3g}")
plots.against(
    [row["lr"] for row in ends],
    [row["held_out"] for row in ends],
    by=[f"after {row['step']} steps" for row in ends],
    label="learning rate",
    unit="held-out mean squared error",
)

# %% [markdown]
# A training of your own is a function `(config, key) -> (state, step)`, with
# `step(state) -> (state, metrics)`. From the command line:
# `bptt-jax sweep --task adding --lr 1e-4:1e-1:log:16 --seed 0:8`. Several devices, hosts and
# clusters: `docs/scaling.md`.
