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
# # Why gradients vanish, and what gates change
#
# The gradient of a loss has to travel back through every step between it and its cause.
# This notebook measures what happens to it on the way: over lags, as singular values and
# eigenvalues of one step, as Lyapunov exponents, and while a network learns. All of it
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
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from bptt_jax import cells, diagnose, estimators, models, plots, tasks, train

T, UNITS = (20, 8) if QUICK else (60, 32)
task = tasks.adding(batch=20 if QUICK else 50, T=T)
batch = task.train.batch(jnp.int32(0), jax.random.key(0))

# %% [markdown]
# ## The problem
#
# The adding problem: two of T numbers are marked, one in each half of the sequence; at the
# last step the network is to say their sum. Whoever says 1 has a mean squared error of
# 1/6. The loss is at the last step, its causes are up to T steps earlier.
#
# ## The chain of Jacobians
#
# Let $s_t$ be the state (all that is handed from step to step) and
# $J_t = \partial s_t / \partial s_{t-1}$ the Jacobian of one step. By the chain rule the
# gradient of the loss at the last step is a product,
#
# $$
# \frac{\partial \ell_T}{\partial s_{T-k}}
#   = J_{T-k+1}^\top \cdots J_{T-1}^\top \, J_T^\top \, \frac{\partial \ell_T}{\partial s_T} .
#   \qquad (1)
# $$
#
# For the network of Elman, $h_t = \tanh(x_t W_x + h_{t-1} W_h + b)$, one step back is
#
# $$
# \frac{\partial \ell_T}{\partial h_{t-1}}
#   = \left( \frac{\partial \ell_T}{\partial h_t} \odot (1 - h_t^2) \right) W_h^\top ,
# \qquad
# \| J_t \| \le \max_i (1 - h_{t,i}^2) \, \| W_h \| . \qquad (2)
# $$
#
# The slope of tanh is at most 1. So if $W_h$ shortens every vector by a factor $g < 1$ or
# more, then k steps shorten the gradient to less than $g^k$: it vanishes exponentially,
# whatever the data are (Hochreiter 1991; Bengio, Simard, Frasconi 1994). If $W_h$
# stretches, it may explode; with saturated units it may vanish all the same.
#
# First the identity (1) itself. `diagnose.gradient_flow` has the gradient with respect to
# all states from one backward pass; `diagnose.jacobians` has all $J_t$ of one sequence.
# This takes about three seconds.

# %%
elman = cells.elman(2, UNITS)
model = models.features((elman,), 1, UNITS)  # and a linear readout
params = jax.jit(model.init)(jax.random.key(1))
flow = diagnose.gradient_flow(model, task.objective, params, batch)
first = batch.inputs[:, 0]
Js = np.asarray(diagnose.jacobians(elman, params[0], jnp.zeros(UNITS), first))
gradient = np.asarray(flow.d_states[0])[:, 0]  # [T, H], of the first example
back = np.einsum("tij,ti->tj", Js[1:], gradient[1:])
error = np.abs(back - gradient[:-1]).max() / np.abs(gradient).max()
print(
    f"J_t^T times the gradient after t, and the gradient before: differ by {error:.1e}"
)
norms = np.linalg.norm(gradient, axis=1)
print(f"its norm at the last step {norms[-1]:.1e}, at the first {norms[0]:.1e}")

# %% [markdown]
# ## Over lags
#
# `diagnose.by_lag` gives the norm $\varphi_k = \| \partial \ell_T / \partial s_{T-k} \|$, a
# mean over examples. Here for a recurrent matrix that is orthogonal times a gain g. The
# dashed lines are $\varphi_0 g^k$, the bound (2) with all slopes 1. It takes about a second.

# %%
GAINS = (0.5, 1.0, 1.5, 3.0)


def with_gain(g):
    return params[0] | dict(w_h=g * params[0]["w_h"]), *params[1:]


def lags_of(model, params):
    found = diagnose.by_lag(model, task.objective, params, batch, lags=T)
    return np.asarray(found.norms)


by_gain = {g: lags_of(model, with_gain(g)) for g in GAINS}
plots.by_lag(
    {f"gain {g}": norms for g, norms in by_gain.items()},
    rates={f"gain {g}": (0, g) for g in GAINS if g <= 1},
    unit=r"$\|\partial \ell_T / \partial h_{T-k}\|$",
)

# %% [markdown]
# At a gain of 0.5 the gradient loses more than half of itself at each step, and is below
# anything that float32 can add to a weight after some tens of steps. Even the orthogonal
# matrix, which keeps all lengths, loses: the slopes of tanh are below 1. At a large gain
# the product grows: the gradient explodes. (Below about 1e-19 the squares in a norm are no
# longer float32 numbers.)
#
# ## One step, as numbers
#
# The singular values of $J_t$ say how much one step can stretch or shorten a vector. The
# product of many steps keeps all directions alike where every step does, as at small gains.
# Where slopes differ from unit to unit, as at large ones, its singular values part by orders
# of magnitude: few directions survive. About a second.

# %%
for g in GAINS:
    at = diagnose.jacobians(elman, with_gain(g)[0], jnp.zeros(UNITS), first)
    one = np.asarray(diagnose.singular_values(at)).mean(0)
    through = diagnose.products(at, T // 2)[-1]
    product = np.asarray(diagnose.singular_values(through))
    print(
        f"gain {g}: one step from {one[0]:.2f} to {one[-1]:.2f};"
        f" {T // 2} steps: {product[0]:.1e}, {product[1]:.1e}, {product[2]:.1e} …"
    )

# %% [markdown]
# ## Lyapunov exponents: the rate, without a loss
#
# How fast does a small deviation of the state grow along a run? The exponents are the mean
# rates, per step, of the best n directions; the largest one, $\lambda_1$, decides about the
# gradient:
#
# $$
# \varphi_k \sim e^{\lambda_1 k} . \qquad (3)
# $$
#
# Below zero gradients vanish, above zero neighbouring states part and gradients explode.
# The figure shows how the estimates settle for the gain of 3. It takes about a second.

# %%
STEPS = 200 if QUICK else 3000
drive = jnp.stack(
    [
        jax.random.uniform(jax.random.key(2), (STEPS,)),
        (jax.random.uniform(jax.random.key(3), (STEPS,)) < 2 / T).astype(jnp.float32),
    ],
    -1,
)  # as the problem's inputs, for longer


def exponents(cell, params, carry):
    return diagnose.lyapunov(cell, params, carry, drive, n=4, every=5, discard=50)


found = {g: exponents(elman, with_gain(g)[0], jnp.zeros(UNITS)) for g in GAINS}
history = np.asarray(found[3.0].history)
plots.exponents(history, steps=50 + 5 * np.arange(1, len(history) + 1))

# %% [markdown]
# Now (3) is visible: the factor per step that is fitted to the gradient by lag, and
# $e^{\lambda_1}$, which knows nothing of the loss.

# %%
for g in GAINS:
    rate = float(diagnose.fitted_rate(jnp.asarray(by_gain[g][: T // 2]), 5))
    largest = float(found[g].exponents[0])
    print(
        f"gain {g}: gradient times {rate:.3f} a step;"
        f" largest exponent {largest:+.3f}, e to it {np.exp(largest):.3f}"
    )

# %% [markdown]
# ## What gates change
#
# The LSTM (Hochreiter, Schmidhuber 1997) has beside $h_t$ a state that is not multiplied
# with a matrix:
#
# $$
# c_t = f_t \odot c_{t-1} + i_t \odot g_t ,
# \qquad
# \frac{\partial c_t}{\partial c_{t-1}} = \mathrm{diag}(f_t) + \cdots \qquad (4)
# $$
#
# On the way back through $c$ the gradient is multiplied with the forget gate, unit by unit:
# no matrix mixes it, no slope shortens it. With $f_t = \sigma(a_t)$ near 1 it stays. What a
# bias of the forget gate does at the start is plain from (4): k steps keep about
# $\sigma(b_f)^k$. The GRU (Cho et al. 2014) does the same with
# $h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1}$, whose gate $z_t$ keeps.
#
# "Chrono" is the initialisation of Tallec and Ollivier (2018): the biases of the units are
# spread so that they keep for 1 to T steps. This takes about ten seconds.
#
# At the start all depends on the gate: where it is half open (the LSTM with a forget bias of
# 0, the GRU) the gradient fades as fast as that of the Elman network, or faster.

# %%
lstm, gru = cells.lstm(2, UNITS), cells.gru(2, UNITS)
chrono = cells.lstm(2, UNITS, chrono=T)
gated = {name: models.features((cell,), 1, UNITS) for name, cell in
         dict(LSTM=lstm, chrono=chrono, GRU=gru).items()}  # fmt: skip
start = {name: jax.jit(m.init)(jax.random.key(1)) for name, m in gated.items()}


def forgetting(bias, recurrent=1.0):
    """The LSTM's parameters with another bias of the forget gate (the second of four)."""
    core, *rest = start["LSTM"]
    b = core["b"].at[UNITS : 2 * UNITS].set(bias)
    return core | dict(b=b, w_h=recurrent * core["w_h"]), *rest


BIASES = (0.0, 1.0, 4.0)
series = {"Elman, gain 1": by_gain[1.0]}
for bias in BIASES:
    series[f"LSTM, forget bias {bias:.0f}"] = lags_of(gated["LSTM"], forgetting(bias))
series["LSTM, chrono"] = lags_of(gated["chrono"], start["chrono"])
series["GRU"] = lags_of(gated["GRU"], start["GRU"])
plots.by_lag(series, unit=r"$\|\partial \ell_T / \partial s_{T-k}\|$")

# %% [markdown]
# The factor per step against the gate. The path that (4) spells out is there alone when
# $W_h = 0$; then the gradient loses exactly what the gate takes. The dots in (4) are the
# path through $h$ and the gates, which an orthogonal $W_h$ keeps open at the start.

# %%
for bias in BIASES:
    direct = jnp.asarray(lags_of(gated["LSTM"], forgetting(bias, 0.0)))
    both = jnp.asarray(series[f"LSTM, forget bias {bias:.0f}"])
    rates = [float(diagnose.fitted_rate(norms, T // 3)) for norms in (direct, both)]
    print(
        f"forget bias {bias:.0f}: the gate is {1 / (1 + np.exp(-bias)):.3f}; gradient times"
        f" {rates[0]:.3f} a step with W_h = 0, {rates[1]:.3f} with both paths"
    )

# %% [markdown]
# In the plane of eigenvalues: those of the chrono LSTM lie along the real axis towards 1, one
# for each memory cell, and near 0, one for each unit of h. Those of the Elman network are
# spread within the circle, in pairs that turn. About a second.

# %%
zero = chrono.init_carry(start["chrono"][0], ())
of_lstm = diagnose.jacobians(chrono, start["chrono"][0], zero, first)[-1]
plots.spectrum(
    {
        "Elman, gain 1": np.linalg.eigvals(Js[-1]),
        "LSTM, chrono": np.linalg.eigvals(np.asarray(of_lstm)),
    },
    unit=r"λ of $J_T$",
)

# %% [markdown]
# ## While it learns
#
# Three networks learn the adding problem, with Adam, gradients clipped at norm 1; together
# they take about twenty-five seconds. Parameters are kept at every fiftieth step, so that
# gradients can be looked at afterwards.

# %%
SNAPSHOTS, EVERY = (3, 4) if QUICK else (30, 50)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))


def trained(model):
    estimator = estimators.exact(model, task.objective)
    state = train.init(model, estimator, optimizer, task.train, jax.random.key(4))
    advance = train.many_steps(estimator, optimizer, task.train.batch)
    losses, kept = [], []
    for i in range(SNAPSHOTS):
        kept.append(jax.tree.map(np.array, state.params))
        state, metrics = advance(state, task.train.read(i * EVERY, EVERY))
        losses.append(np.asarray(metrics["loss"]))
    return np.concatenate(losses), jax.tree.map(lambda *a: np.stack(a), *kept)


runs = {
    "Elman": (model, *trained(model)),
    "LSTM, chrono": (gated["chrono"], *trained(gated["chrono"])),
    "GRU": (gated["GRU"], *trained(gated["GRU"])),
}
means = {
    name: (
        EVERY * np.arange(1, SNAPSHOTS + 1),
        losses.reshape(SNAPSHOTS, EVERY).mean(1),
    )
    for name, (_, losses, _) in runs.items()
}
plots.curves(means, unit="mean squared error", levels={"says 1": 1 / 6}, log=True)

# %% [markdown]
# The gated networks learn what the causes are; the Elman network stays at the error of one
# that says 1. Its gradient tells why. The heat map has, for each training step kept, the
# norm of $\partial L / \partial s_t$ over time, a mean over examples. It takes about three
# seconds.


# %%
def flow_norms(name):
    """[S, T]: at each snapshot, over time."""
    model, _, kept = runs[name]

    def one(params):
        found = diagnose.gradient_flow(model, task.objective, params, batch)
        return diagnose.state_norms(found.d_states[0]).mean(1)

    return np.asarray(jax.jit(lambda kept: lax.map(one, kept))(kept))


steps = EVERY * np.arange(SNAPSHOTS)
maps = {name: flow_norms(name) for name in ("Elman", "LSTM, chrono")}
plots.gradient_flow(maps["Elman"], steps=steps, unit="Elman: norm of dL/ds_t")

# %%
plots.gradient_flow(
    maps["LSTM, chrono"], steps=steps, unit="LSTM, chrono: norm of dL/ds_t"
)

# %%
for name, norms in maps.items():
    share = norms[:, 0] / norms[:, -1]
    print(
        f"{name}: of the gradient at the last step the first has"
        f" {share[0]:.1e} before training, {share[-1]:.1e} at its end"
    )

# %% [markdown]
# ## What the trained LSTM does
#
# Its memory cells on one sequence: the two steps at which a number is marked are where the
# states change for good. Between them the forget gates keep; some units drift with time.
# `diagnose.activity` says in what share of the steps each gate is within a tenth of 0 or
# of 1. About two seconds.

# %%
_, _, kept = runs["LSTM, chrono"]
last = jax.tree.map(lambda a: jnp.asarray(a[-1]), kept)


@jax.jit
def memory_cells(params, xs):
    def step(carry, x):
        carry, _ = chrono.step(params, carry, x)
        return carry, carry.c

    return lax.scan(step, chrono.init_carry(params, ()), xs)[1]


(activity,) = diagnose.activity(gated["chrono"], last, batch)
for gate, name in dict(i="input", f="forget", o="output").items():
    low, high = (float(np.mean(share[gate])) for share in (activity.low, activity.high))
    print(
        f"{name:6} gate: below 0.1 in {low:.0%}, above 0.9 in {high:.0%} of the steps"
    )
print("marked at the steps", np.flatnonzero(np.asarray(first[:, 1])))
plots.activity(memory_cells(last[0], first), unit=r"$c_t$")

# %% [markdown]
# ## What else helps
#
# - against explosion: clipping the gradient's norm (`optax.clip_by_global_norm`), or the
#   cotangent of the state at each step (`layers.clip_d_carry`);
# - against fading: `diagnose.regularised` adds the regulariser of Pascanu, Mikolov and
#   Bengio (2013), which keeps the norm of the gradient from step to step; identity and
#   orthogonal recurrent matrices (`cells.identity`); independent recurrent weights
#   (`cells.indrnn`);
# - knowing how far back it is worth going: `diagnose.window`, in the notebook
#   [character_model](character_model.ipynb).
