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
# # Memory: stretches, checkpoints, truncation
#
# Backpropagation through time stores what the backward pass needs of every step. This
# notebook asks XLA how many bytes that is, without running anything, and shows what can be
# done about it: exactly (a lean derivative, running stretches again, checkpoints within a
# budget), or by computing another gradient (truncation), whose error is measured. All of it
# takes about a minute on two CPU cores.

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

import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from bptt_jax import (
    Side,
    cells,
    diagnose,
    estimators,
    layers,
    models,
    objectives,
    plots,
    tasks,
    train,
    unrolls,
)

# %% [markdown]
# ## XLA's account
#
# A compiled program says how much memory it takes beside its arguments and results. Here it
# is the gradient of a mean loss of an LSTM with a readout, T steps of B sequences. Only
# shapes are needed: `jax.ShapeDtypeStruct` stands for an array.
#
# The loss is a part of the layer (`layers.with_loss`), so that its outputs are T losses and
# the outputs of the readout never exist all at once.

# %%
T, B, I, H, O = (100, 4, 4, 16, 4) if QUICK else (1000, 16, 8, 64, 8)
recurrent, readout = layers.recurrent(cells.lstm(I, H)), layers.dense(H, O)
layer = layers.with_loss(layers.stack(recurrent, readout), objectives.squared_error)
lean = layers.remat(layer)


def gradient(layer, unroll):
    """`(params, xs, targets) -> gradient of the mean loss`."""

    def loss(params, xs, targets):
        carry = layer.init_carry(params, (xs.shape[1],))
        return unroll(layer, params, carry, xs, Side(targets=targets))[1].mean()

    return jax.jit(jax.grad(loss))


def megabytes(layer, unroll, T):
    params = jax.eval_shape(layer.init, jax.random.key(0))
    shapes = [jax.ShapeDtypeStruct((T, B, n), jnp.float32) for n in (I, O)]
    program = gradient(layer, unroll).lower(params, *shapes).compile()
    return program.memory_analysis().temp_size_in_bytes / 1e6


# %% [markdown]
# To compare with: JAX's own derivative of the loop, and the same with each step under
# `jax.checkpoint`. This takes about seven seconds.


# %%
def steps_again(layer, params, carry, xs, side):
    """`lax.scan` whose steps are computed again on the way back."""

    @jax.checkpoint
    def step(carry, at):
        xs, side = jax.tree.map(lambda a: a[None], at)
        carry, ys, _ = layer.fwd(params, carry, xs, side)
        return carry, ys[0]

    return lax.scan(step, carry, (xs, side))


with_gates = layers.with_options(layer, save=layers.GATES)
ways = {
    "jax.grad of lax.scan": (layer, unrolls.scan),
    "its step under jax.checkpoint": (layer, steps_again),
    "unrolls.bptt, layers.GATES": (with_gates, unrolls.bptt),
    "unrolls.bptt": (layer, unrolls.bptt),
    "unrolls.bptt, layers.remat": (lean, unrolls.bptt),
    "unrolls.checkpointed": (layer, unrolls.checkpointed),
}
found = {name: megabytes(*way, T) for name, way in ways.items()}
plots.bars(found, unit="temporary memory of one gradient, MB")

# %% [markdown]
# In units of one float for each step, example and unit (T·B·H): the derivative by JAX keeps
# several arrays for each gate; `bptt` the states h and c of each step, and what one stretch
# of time needs.
#
# - `layers.with_options(layer, save=layers.GATES)` is the same model that keeps its gates,
#   too, four numbers more for each unit, and computes none of them again;
# - `layers.remat(layer)` stores the state where each stretch of time begins, and runs the
#   stretch again on the way back, readout and loss included: one more forward pass;
# - `unrolls.checkpointed` stores a given number of states, and runs stretches again as
#   often as that takes.

# %%
for name, mb in found.items():
    print(f"{name:30} {mb * 1e6 / (4 * T * B * H):6.2f} T·B·H floats")

# %% [markdown]
# ## How it grows with time
#
# A line of slope 1 in this figure is memory in proportion to T. This takes about fifteen
# seconds.

# %%
LENGTHS = (50,) if QUICK else (250, 1000, 4000)
few = functools.partial(unrolls.checkpointed, slots=4, chunk=10)
more = {
    "jax.grad of lax.scan": (layer, unrolls.scan),
    "unrolls.bptt": (layer, unrolls.bptt),
    "checkpointed, as it is": (layer, unrolls.checkpointed),
    "checkpointed, 4 states": (layer, few),
}
plots.curves(
    {
        name: (LENGTHS, [megabytes(*way, T) for T in LENGTHS])
        for name, way in more.items()
    },
    label="steps T",
    unit="temporary memory, MB",
    log=True,
    log_x=True,
)

# %% [markdown]
# `checkpointed` with a fixed number of states grows by the losses alone: [T, B] numbers and
# their cotangents. What it pays in time is known beforehand. With n stretches and m stored
# states, the stretches are run
#
# $$
# R(n, m) = (r + 1)\, n - \binom{m + r}{r - 1} + 1 ,
# \qquad r = \min \left\{ r : \binom{m + r}{m} \ge n \right\} \qquad (1)
# $$
#
# times in all, the least that m states allow (Griewank, Walther 2000).
#
# ## Within a budget
#
# One need not choose: `memory=` takes a number of bytes, and `unrolls.plan` says what it
# would do with them. It takes about ten seconds (some small programs are compiled, once).

# %%
long = 1000 if QUICK else 4000
params = jax.eval_shape(layer.init, jax.random.key(0))
carry = jax.eval_shape(lambda p: layer.init_carry(p, (B,)), params)
shapes = [jax.ShapeDtypeStruct((long, B, n), jnp.float32) for n in (I, O)]
plan = functools.partial(
    unrolls.plan, layer, params, carry, shapes[0], Side(targets=shapes[1])
)
whole = plan(memory=10**9)
budget = whole.bytes // 20
print(
    f"all of it, {long} steps:\n{whole}\n\na twentieth of that:\n{plan(memory=budget)}"
)

# %% [markdown]
# Over budgets: the less memory, the more time. The time here is an estimate, not measured:
# the forward runs of the plan's stretches and a backward pass that is worth 2.5 of them,
# each stretch as long as its steps and two more. The line printed compares the predicted
# bytes with XLA's account of the program that runs under the smaller budget. This takes
# about three seconds.

# %%
least = budget // 8
while True:  # the least that any plan takes is in the message
    try:
        plan(memory=least)
        break
    except ValueError as error:
        least = int(str(error).split("at least ")[1].split()[0])
budgets = np.unique(np.geomspace(least, whole.bytes, 2 if QUICK else 25).astype(int))
plans = [plan(memory=int(budget)) for budget in budgets]
within = functools.partial(unrolls.checkpointed, memory=budget)
took = megabytes(layer, within, long)
print(f"predicted {plan(memory=budget).bytes / 1e6:.3f} MB, XLA says {took:.3f} MB")


def estimate(p):
    return (p.evaluations + 2.5 * p.stretches) * (p.chunk + 2)


plots.memory_time(
    {
        "unrolls.plan": (
            [p.bytes for p in plans],
            [estimate(p) / estimate(whole) for p in plans],
        )
    },
    unit="estimated time of a gradient, bptt = 1",
)

# %% [markdown]
# The gradient is the same, to rounding. This takes about five seconds.

# %%
keys = jax.random.split(jax.random.key(1), 3)
weights = jax.jit(layer.init)(keys[0])
xs, targets = (jax.random.normal(k, (T, B, n)) for k, n in zip(keys[1:], (I, O)))
reference = gradient(layer, unrolls.bptt)(weights, xs, targets)
for name, way in {
    "layers.remat": (lean, unrolls.bptt),
    "checkpointed, 4 states": (layer, few),
}.items():
    other = gradient(*way)(weights, xs, targets)
    error = max(
        float(np.abs(np.subtract(a, b)).max() / np.abs(b).max())
        for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(reference))
    )
    print(f"{name:24} largest relative difference {error:.1e}")

# %% [markdown]
# ## Truncation is another gradient
#
# `unrolls.truncated` cuts the chain: what a loss owes to steps further back than the window
# is left out. That is not noise but a bias. How large, depends on the problem, and
# `diagnose.bias` measures it.
#
# The problem here is "coin": the odds of each target depend on the inputs 3 and 8 steps
# before (Pitis 2016). An Elman network is trained exactly for a while; then its exact
# gradient is compared with truncated ones, in which each loss sees so many lags. This takes
# about fifteen seconds.

# %%
task = tasks.coin(batch=64, T=24 if QUICK else 40, t1=3, t2=8)
elman = cells.elman(1, 32)
model = models.features((elman,), 1, 32)
exact = estimators.exact(model, task.objective)
adam = optax.adam(3e-3)
state = train.init(model, exact, adam, task.train, jax.random.key(2))
advance = train.many_steps(exact, adam, task.train.batch)
state, metrics = advance(state, task.train.read(0, 10 if QUICK else 1000))
trained, batch = state.params, task.train.batch(jnp.int32(0), jax.random.key(3))
print(f"loss {np.asarray(metrics['loss'])[-10:].mean():.4f};", "best possible:")
print({name: round(nats, 4) for name, nats in task.baselines.items()})


def bias_of(lags):
    cut = functools.partial(unrolls.truncated, window=lags, stride=1)
    estimator = estimators.exact(model, task.objective, unroll=cut)
    return diagnose.bias(estimator, exact, trained, batch, jax.random.key(4))


LAGS = (4,) if QUICK else (1, 2, 3, 4, 6, 8, 9, 12, 24)
biases = {lags: bias_of(lags) for lags in LAGS}
plots.curves(
    {
        "relative error": (LAGS, [float(b.relative_error) for b in biases.values()]),
        "cosine with the exact gradient": (
            LAGS,
            [float(b.cosine) for b in biases.values()],
        ),
    },
    label="lags that a loss sees",
    unit="",
)

# %% [markdown]
# ## Truncation at random, without a bias
#
# `unrolls.randomly_truncated` cuts at random places and enlarges what passes a place where
# there might have been a cut (Tallec, Ollivier 2017). A single gradient is noisy, but the
# mean over draws goes to the exact one, with the root of their number. The truncated one
# stays where it is, however often it is drawn. The model is the same: what multiplies the
# gradient on its way is put into its recurrent parts by the unroll. This takes about ten
# seconds.

# %%
at_random = functools.partial(unrolls.randomly_truncated, mean_length=8)
noisy = estimators.exact(model, task.objective, unroll=at_random)
DRAWS = (2,) if QUICK else (1, 8, 64, 512)
errors = [
    float(
        diagnose.bias(
            noisy, exact, trained, batch, jax.random.key(5), draws=n
        ).relative_error
    )
    for n in DRAWS
]
plots.curves(
    {"mean of so many random truncations": (DRAWS, errors)},
    label="draws",
    unit="relative error of the mean gradient",
    levels={"4 lags": float(biases[4].relative_error)},
    log=True,
    log_x=True,
)

# %% [markdown]
# ## What truncation saves
#
# Within one sequence nothing: `truncated` stores what `bptt` does. Memory falls where a long
# sequence comes in pieces, and only the state is handed on from one to the next:
# `estimators.stream`. About three seconds.

# %%
whole = megabytes(layer, unrolls.bptt, T)
cut = megabytes(layer, functools.partial(unrolls.truncated, window=50), T)
piece = megabytes(layer, unrolls.bptt, 50)
print(f"{T} steps at once           {whole:7.3f} MB")
print(f"… with a window of 50 steps {cut:7.3f} MB")
print(f"pieces of 50 steps          {piece:7.3f} MB")

# %% [markdown]
# ## Which one to take
#
# `unrolls.bptt`, unless memory is short; then `layers.remat`, one word; then
# `unrolls.checkpointed`, with a number of states or of bytes. Truncate where the sequence
# has no end, and measure what that leaves out.
