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
# # A character model, and how its gradients are read
#
# An LSTM learns to write Python, from the source of the standard library that is on this
# machine already. Parameters are kept along the way, and then the gradients are looked at:
# where in time they are, how far back they reach, what window truncation could do with, and
# what the gates do. All of it takes about a minute and a half on two CPU cores.

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
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from bptt_jax import cells, diagnose, estimators, models, plots, tasks, train

# %% [markdown]
# ## The text
#
# `tasks.stdlib` reads the library's files (every 20th is held out) and lays them out as B
# rows. A batch is a window of T characters of each row; the targets are the characters one
# later; the next batch continues where this one ends. Reading takes about two seconds.

# %%
B, T, UNITS = (8, 16, 16) if QUICK else (32, 64, 128)
task = tasks.stdlib(batch=B, T=T)
text = tasks.decode(task, task.train.read(40, 1).tokens[0, :, 0])
print(task.n_in, "symbols;", task.train.length, "windows of", T, "steps; one of them:")
print(text)

# %% [markdown]
# ## Training
#
# Embedding, LSTM, readout, as one layer. The loss is the mean cross-entropy of the next
# character,
#
# $$
# L = - \frac{1}{T B} \sum_{t, b} \log p(x_{t+1}^b \mid x_1^b, \ldots, x_t^b) ,
# $$
#
# whose gradient `estimators.stream` computes within each window: the state is handed on from
# window to window, the gradient is not (truncated BPTT). Adam; gradients clipped at norm 1.
# This takes about thirty seconds.

# %%
SNAPSHOTS, EVERY = (2, 3) if QUICK else (24, 50)
cell = cells.lstm(32, UNITS)
model = models.symbols(task.n_in, 32, (cell,), task.n_out, UNITS)
estimator = estimators.stream(model, task.objective)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(4e-3))
state = train.init(model, estimator, optimizer, task.train, jax.random.key(0))
advance = train.many_steps(estimator, optimizer, task.train.batch)
held_out_loss = train.evaluator(model, task.objective, task.held_out.batch, True)
held_out_items = task.held_out.read(0, 2 if QUICK else 16)


def held_out(params):
    sums = held_out_loss(params, None, held_out_items)
    return float(sums.losses) / float(sums.steps) / np.log(2)


kept, losses, norms, held = [], [], [], []
for i in range(SNAPSHOTS):
    kept.append(jax.tree.map(np.array, state.params))
    state, metrics = advance(state, task.train.read(i * EVERY, EVERY))
    losses.append(np.asarray(metrics["loss"]) / np.log(2))
    norms.append(np.asarray(metrics["grad_norm"]))
    held.append(held_out(state.params))
kept.append(jax.tree.map(np.array, state.params))
steps = EVERY * np.arange(SNAPSHOTS + 1)
print(f"held out: {held[0]:.2f} bits a character after {EVERY} steps,")
print(f"          {held[-1]:.2f} after {steps[-1]}")

# %% [markdown]
# Beside it what counting does: a 5-gram model of all of the training text (about three
# seconds), of which the LSTM has seen a part.

# %%
uniform = float(np.log2(task.n_in))
baselines = {"all alike": uniform} if QUICK else {"5-gram": tasks.ngram_baseline(task)}
plots.loss(
    np.arange(1, steps[-1] + 1),
    np.concatenate(losses),
    held_out_steps=steps[1:],
    held_out=held,
    baselines=baselines,
    unit="bits per character",
)

# %% [markdown]
# What it writes, one character after another, with the logits divided by a temperature of
# 0.7. About two seconds.

# %%
prompt = tasks.encode(task, "def ")
length = 20 if QUICK else 300
drawn = models.generate(model, state.params, prompt, length, 0.7, jax.random.key(1))
print("def " + tasks.decode(task, drawn))

# %% [markdown]
# ## Clipping
#
# How often did it act? Hardly ever: it is a precaution.

# %%
print(diagnose.clipping(np.concatenate(norms), 1.0))
print("by fifths of the training:")
for fifth in np.array_split(np.concatenate(norms), 5):
    found = diagnose.clipping(fifth, 1.0)
    print(f"    {found.share:4.0%} clipped, largest norm {found.largest:.2f}")

# %% [markdown]
# ## Where in time the gradient is
#
# `diagnose.gradient_flow` has the gradient of the loss with respect to the state after each
# step, $\partial L / \partial s_t$ with $s = (h, c)$, for all t from one backward pass. Here
# on 256 steps of held-out text, a mean over the rows, for the parameters kept along the
# training. It takes about four seconds.
#
# The state at step t owes something to all losses after it. Before training these are the
# next few, and the map is even. With training the gradient becomes several times larger,
# and uneven: bright where much that comes later hangs on what the state holds.

# %%
LONG = 32 if QUICK else 256
longer = tasks.stdlib(batch=B, T=LONG)
item = jax.tree.map(lambda a: jnp.asarray(a[0]), longer.held_out.read(1, 1))
batch = longer.held_out.batch(item, jax.random.key(2))
all_kept = jax.tree.map(lambda *a: np.stack(a), *kept)


@jax.jit
def flows(kept):
    """[S, T, B]: norms at each snapshot."""

    def one(params):
        found = diagnose.gradient_flow(model, task.objective, params, batch)
        return diagnose.state_norms(found.d_states[0])

    return lax.map(one, kept)


flow = np.asarray(flows(all_kept))
for name, each in {"before training": flow[0], "after": flow[-1]}.items():
    half, last = each[: LONG // 2].mean(), each[-1].mean()
    print(f"{name}: in the first half {half:.1e}, at the last step {last:.1e}")
plots.gradient_flow(flow.mean(2), steps=steps, unit="norm of dL/ds_t")

# %% [markdown]
# Which characters are worth most? The norm of the gradient with respect to the state right
# after a character, at the end of training, relative to the mean over all: where it is large,
# much depends on what has just been read.

# %%
tokens, final = np.asarray(batch.inputs), flow[-1] / flow[-1].mean()
ranked = [
    (final[tokens == token].mean(), repr(symbol), (tokens == token).sum())
    for token, symbol in enumerate(task.text.symbols)
    if (tokens == token).sum() >= (2 if QUICK else 30)
]
ranked.sort(reverse=True)
for value, symbol, count in ranked[:6] + ranked[-6:]:
    print(f"{symbol:5} {value:.2f} times the mean  ({count} of them)")

# %% [markdown]
# ## How far back a loss reaches
#
# `diagnose.by_lag`: the norm $\varphi_k$ of $\partial \ell_t / \partial s_{t-k}$ over the
# lag k, a mean over rows and some steps t. At the start, in the middle and at the end of the
# training, each with the rate $\beta$ fitted from lag 10 on. About three seconds.

# %%
LAGS, FROM = (16, 4) if QUICK else (64, 10)
at = {"before training": 0, f"step {steps[len(steps) // 4]}": len(steps) // 4}
at |= {f"step {steps[-1]}": len(steps) - 1}
lags = {
    name: diagnose.by_lag(
        model,
        task.objective,
        kept[i],
        batch,
        lags=LAGS,
    )
    for name, i in at.items()
}
rates = {name: float(diagnose.fitted_rate(f.norms, FROM)) for name, f in lags.items()}
plots.by_lag(
    {name: np.asarray(found.norms) for name, found in lags.items()},
    rates={name: (FROM, rate) for name, rate in rates.items()},
    unit=r"$\varphi_k = \|\partial \ell_t / \partial s_{t-k}\|$",
)

# %% [markdown]
# ## How long a window is enough?
#
# If $\varphi$ falls by a factor of $\beta$ a step, then what a window of K lags leaves out is
# bounded by a geometric sum, and relative to the whole (Aicher, Foti, Fox 2019)
#
# $$
# \delta(K) \le \frac{\mathcal{E}(K)}{\max_j (\sigma_j - \mathcal{E}(j))} , \qquad
# \mathcal{E}(K) = \sum_{k \ge K} \varphi_k \approx \frac{\varphi_K}{1 - \beta} ,
# $$
#
# with $\sigma_j$ the norm of the gradient from the first j lags.
# `diagnose.window` is the least K whose $\delta$ is below a tolerance;
# `diagnose.horizon` the least that holds 95 % of all norms.


# %%
def shown(found, tolerance):
    K = int(diagnose.window(found.norms, found.sums, tolerance=tolerance, start=FROM))
    return f"{K}" if K < LAGS else f"{K} or more"


for name, found in lags.items():
    tight, loose = shown(found, 0.1), shown(found, 0.5)
    most = int(diagnose.horizon(found.norms))
    print(f"{name:16} window for a bias below 0.5: {loose}; below 0.1: {tight};")
    print(f"{'':16} 95 % of the norms within {most} lags; β = {rates[name]:.3f}")

# %% [markdown]
# While the network learns to remember, the gradient no longer falls fast enough for such a
# bound to hold within the lags that were measured: windows of 64 steps, through which it was
# trained, leave something out. (`diagnose.adaptive_truncation` is an estimator that chooses
# its window so, again and again while training.)
#
# ## What the gates do
#
# `diagnose.activity`: in what share of the steps each gate is within a tenth of 0 or of 1,
# before training and after. About two seconds.

# %%
for name, i in {"before training": 0, "after": -1}.items():
    params = kept[i]
    (found,) = diagnose.activity(model, params, batch)
    for gate, called in dict(i="input", f="forget", o="output").items():
        low, high = (float(np.mean(s[gate])) for s in (found.low, found.high))
        print(f"{name:16} {called:6} gate: closed {low:4.0%}, open {high:4.0%}")
    print(f"{name:16} dead units: {int(found.dead.h.sum())} of {UNITS}")

# %% [markdown]
# Shares of single units: those whose forget gate is mostly open keep what they hold.

# %%
open_share = np.sort(np.asarray(found.high["f"]))[::-1]
closed_share = np.sort(np.asarray(found.low["f"]))[::-1]
plots.curves(
    {
        "forget gate above 0.9": (np.arange(UNITS), open_share),
        "forget gate below 0.1": (np.arange(UNITS), closed_share),
    },
    label="unit, sorted",
    unit="share of the steps",
)

# %% [markdown]
# ## Memory cells over a piece of text
#
# Most cells are full at all times. Of those that move, here are the 30 that do it most
# rarely, over the text below. They keep a value over words and lines; the runs of spaces at
# the beginning of a line stand out. About a second.


# %%
@jax.jit
def memory_cells(params, tokens):
    xs = params[0]["embedding"][tokens]

    def step(carry, x):
        carry, _ = cell.step(params[1], carry, x)
        return carry, carry.c

    return lax.scan(step, cell.init_carry(params[1], ()), xs)[1]


row, shown_steps = tokens[:, 3], 100
cs = np.asarray(memory_cells(params, row))[-shown_steps:]
held_there = np.tanh(cs)
spread = held_there.std(0)
change = np.abs(np.diff(held_there, axis=0)).mean(0)
moving = np.flatnonzero(spread > 0.3 * spread.max())
rarely = moving[np.argsort(change[moving] / spread[moving])][:30]
print(tasks.decode(task, row[-shown_steps:]))
plots.activity(held_there[:, rarely], unit=r"tanh $c_t$")

# %% [markdown]
# The full training, three minutes on two fast cores, is one command: `bptt-jax train`. What
# it reaches: `experiments/character_model`.
