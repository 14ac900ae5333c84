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
# # Backpropagation through time, from scratch
#
# A recurrent network is one small function, applied again and again. This notebook writes
# that function, differentiates it by hand, registers the derivative with
# `jax.custom_vjp`, checks it, and trains a network that adds binary numbers of any length.
# Then it does the same with `bptt_jax`. All of it takes about fifteen seconds on two
# CPU cores.

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
from jax import lax

from bptt_jax import cells, plots, unrolls

# %% [markdown]
# ## The problem: addition with a carry
#
# Two binary numbers come in bit by bit, the lowest bit first. At each step the network is
# to say the bit of their sum. The inputs of a step do not decide it: there may be a carry
# from the steps before, and that is what the network must learn to remember.
#
# Arrays are time-major: `xs [T, B, 2]` are inputs over T steps of B examples, `bits [T, B]`
# the targets.


# %%
def additions(key, examples, length):
    """Pairs of numbers below 2^(length - 1), and their sums, as bits."""
    pairs = jax.random.bernoulli(key, 0.5, (length, examples, 2)).astype(jnp.int32)
    pairs = pairs.at[-1].set(0)  # room for the last carry

    def add(carry, pair):
        total = pair.sum(-1) + carry
        return total // 2, total % 2

    _, bits = lax.scan(add, jnp.zeros(examples, jnp.int32), pairs)
    return pairs.astype(jnp.float32), bits.astype(jnp.float32)


EXAMPLES, LENGTH = (256, 6) if QUICK else (2000, 10)
xs, bits = additions(jax.random.key(0), EXAMPLES, LENGTH)
print("first number ", np.asarray(xs[::-1, 0, 0], int))
print("second number", np.asarray(xs[::-1, 0, 1], int))
print("their sum    ", np.asarray(bits[::-1, 0], int), " (highest bit first)")

# %% [markdown]
# ## One step is a pure function
#
# The network of Elman (1990) has a state $h_t$ of H units:
#
# $$
# \begin{aligned}
# z_t &= x_t W_x + h_{t-1} W_h + b & (1) \\
# h_t &= \tanh z_t & (2)
# \end{aligned}
# $$
#
# As a function: parameters, state and input go in, the new state and an output come out
# (here the output is the state). It changes nothing outside of itself, so JAX can
# transform it. `lax.scan` applies it T times and hands the state on.


# %%
def step(params, h, x):
    h = jnp.tanh(x @ params["w_x"] + h @ params["w_h"] + params["b"])  # (1), (2)
    return h, h


def run(params, h, xs):
    return lax.scan(functools.partial(step, params), h, xs)


# %% [markdown]
# **Weight initialisation.** Inputs are scaled by the number of features. The recurrent
# matrix is orthogonal: it keeps the length of what passes through it, so a state neither
# dies out nor explodes at once.

# %%
UNITS = 16


def init(key):
    k_x, k_h, k_y = jax.random.split(key, 3)
    return dict(
        w_x=jax.random.normal(k_x, (2, UNITS)) / 2**0.5,
        w_h=jax.random.orthogonal(k_h, UNITS),
        b=jnp.zeros(UNITS),
    ), dict(w=jax.random.normal(k_y, (UNITS,)) / UNITS**0.5, b=jnp.zeros(()))


core, readout = jax.jit(init)(jax.random.key(1))
h0 = jnp.zeros((EXAMPLES, UNITS))
last, hs = run(core, h0, xs)
print("states", hs.shape, "the last is the final one:", bool((last == hs[-1]).all()))

# %% [markdown]
# ## The derivation
#
# Let $L$ be any loss that is computed from the states, and write $\mathrm{d}v$ for
# $\partial L / \partial v$, a thing of the shape of $v$ (its *cotangent*). The state $h_t$
# reaches the loss in two ways: through the output of step $t$, which gives
# $\mathrm{d}y_t$, and through the next state. So, from the last step to the first,
#
# $$
# \begin{aligned}
# \delta_t &= (\mathrm{d}h_t + \mathrm{d}y_t) \odot (1 - h_t^2)
#   & (3) \quad & \text{through (2), as } \tanh' z_t = 1 - h_t^2 \\
# \mathrm{d}h_{t-1} &= \delta_t W_h^\top
#   & (4) \quad & \text{through (1)}
# \end{aligned}
# $$
#
# where $\delta_t$ is the cotangent of $z_t$, and $\mathrm{d}h_T$ that of the final state.
# The weights are the same at all steps, so what the steps owe them adds up:
#
# $$
# \begin{aligned}
# \mathrm{d}W_x = \sum_{t=1}^{T} x_t^\top \delta_t , \qquad
# \mathrm{d}W_h = \sum_{t=1}^{T} h_{t-1}^\top \delta_t , \qquad
# \mathrm{d}b = \sum_{t=1}^{T} \delta_t , \qquad
# \mathrm{d}x_t = \delta_t W_x^\top & \qquad (5)
# \end{aligned}
# $$
#
# This is backpropagation through time (Rumelhart, Hinton, Williams 1986; Werbos 1990).
# Two things are worth seeing:
#
# - going back is a *linear* recurrence in $\mathrm{d}h$: its coefficients $1 - h_t^2$ are
#   known from the forward pass, and need nothing but the stored states;
# - only (3) and (4) must go step by step. The sums (5) can wait until all $\delta_t$ are
#   there, and are then one product for each weight.
#
# ## The derivative, by hand
#
# `jax.custom_vjp` lets a function bring its own backward pass: `forward` returns what it
# must keep beside the result, `backward` turns the cotangents of the results into those of
# the arguments.


# %%
@jax.custom_vjp
def by_hand(params, h, xs):
    return run(params, h, xs)


def forward(params, h, xs):
    last, hs = run(params, h, xs)
    return (last, hs), (params, h, xs, hs)


def backward(kept, cotangents):
    params, h, xs, hs = kept
    d_last, d_ys = cotangents
    before = jnp.concatenate([h[None], hs[:-1]])  # h_0 … h_{T-1}

    def back(d_h, at):
        h, d_y = at
        delta = (d_h + d_y) * (1 - h * h)  # (3)
        return delta @ params["w_h"].T, delta  # (4)

    d_first, deltas = lax.scan(back, d_last, (hs, d_ys), reverse=True)
    d_params = dict(  # (5)
        w_x=jnp.einsum("tbi,tbh->ih", xs, deltas),
        w_h=jnp.einsum("tbi,tbh->ih", before, deltas),
        b=deltas.sum((0, 1)),
    )
    return d_params, d_first, deltas @ params["w_x"].T


by_hand.defvjp(forward, backward)

# %% [markdown]
# ## Is it right?
#
# Three answers to one question. The gradient of a random linear function of all outputs and
# of the final state: by hand, by `jax.grad` of the plain loop, and for one entry by a
# difference quotient of the loss itself. In float64, so that rounding does not hide a
# mistake. It takes about a second.


# %%
def probe(runner, params, h, xs, v, w):
    last, hs = runner(params, h, xs)
    return (v * hs).sum() + (w * last).sum()


rng = np.random.default_rng(0)
jax.config.update("jax_enable_x64", True)
exact = {name: np.asarray(a, np.float64) for name, a in core.items()}
shapes = (4, UNITS), (7, 4, 2), (7, 4, UNITS), (4, UNITS)
at = exact, *(rng.normal(size=shape) for shape in shapes)
gradient = jax.jit(jax.grad(probe, (1, 2, 3)), static_argnums=0)
ours, jaxs = gradient(by_hand, *at), gradient(run, *at)
value = jax.jit(functools.partial(probe, run))


def moved(by):
    w_h = exact["w_h"].copy()
    w_h[3, 5] += by
    return float(value(exact | dict(w_h=w_h), *at[1:]))


slope = (moved(1e-6) - moved(-1e-6)) / 2e-6
jax.config.update("jax_enable_x64", False)

for name, a, b in [
    *((f"dL/d{name}", ours[0][name], jaxs[0][name]) for name in exact),
    ("dL/dh_0", ours[1], jaxs[1]),
    ("dL/dxs", ours[2], jaxs[2]),
]:
    error = np.abs(np.subtract(a, b)).max() / np.abs(b).max()
    print(f"{name:8} by hand and by jax.grad differ by {error:.1e}")
print(f"dL/dw_h[3, 5] = {ours[0]['w_h'][3, 5]:.8f}, by differences {slope:.8f}")

# %% [markdown]
# ## Training
#
# **Loss.** The output of a step is one number, the logarithm of the odds that the bit is 1;
# its loss is the cross-entropy, in nats. **Update.** Gradient descent with momentum: a
# running sum of gradients moves the weights. **Epochs.** Each goes through all examples
# once, in a new order, 50 at a time; one epoch is one compiled program, a `lax.scan` over
# minibatches.


# %%
def logits(params, xs, runner):
    core, readout = params
    h0 = jnp.zeros((xs.shape[1], UNITS))
    _, hs = runner(core, h0, xs)
    return hs @ readout["w"] + readout["b"]


def loss(params, xs, bits, runner):
    a = logits(params, xs, runner)
    return jnp.mean(jnp.logaddexp(0.0, a) - bits * a)  # -log p(bit)


RATE, MOMENTUM, BATCH = 0.1, 0.9, 50


def update(runner, state, batch):
    params, speed = state
    value, grads = jax.value_and_grad(loss)(params, *batch, runner)
    speed = jax.tree.map(lambda s, g: MOMENTUM * s - RATE * g, speed, grads)
    return (jax.tree.map(jnp.add, params, speed), speed), value


@functools.partial(jax.jit, static_argnames="runner")
def epoch(state, key, runner):
    n = EXAMPLES // BATCH
    order = jax.random.permutation(key, EXAMPLES)[: n * BATCH].reshape(n, BATCH)
    batches = jnp.moveaxis(xs[:, order], 1, 0), jnp.moveaxis(bits[:, order], 1, 0)
    return lax.scan(functools.partial(update, runner), state, batches)


@functools.partial(jax.jit, static_argnames="runner")
def wrong_bits(params, xs, bits, runner):
    return jnp.mean((logits(params, xs, runner) > 0) != (bits > 0.5))


def train(runner, epochs, show):
    params = jax.jit(init)(jax.random.key(1))
    state, losses = (params, jax.tree.map(jnp.zeros_like, params)), []
    for number in range(epochs):
        state, values = epoch(state, jax.random.key(number), runner)
        losses.append(values)
        if show and (number + 1) % (epochs // 6) == 0:
            wrong = wrong_bits(state[0], xs, bits, runner)
            mean = np.mean(values)
            print(f"epoch {number + 1:3}: loss {mean:.4f}, wrong bits {wrong:.2%}")
    return state[0], np.concatenate(losses)


# %% [markdown]
# This takes about two seconds.

# %%
EPOCHS = 6 if QUICK else 30
trained, losses = train(by_hand, EPOCHS, show=True)
plots.loss(
    np.arange(1, len(losses) + 1),
    losses,
    baselines={"a coin": float(np.log(2))},
    unit="cross-entropy of a bit, nats",
)

# %% [markdown]
# ## What it has learnt
#
# Addition, not the examples: it has seen numbers of nine bits, and is asked for numbers of
# up to 59. This takes about two seconds.


# %%
def add(a, b, length=60):
    """The sum of two integers, as the network has it."""
    pairs = np.array([[[a >> t & 1, b >> t & 1]] for t in range(length)], np.float32)
    said = np.asarray(logits(trained, pairs, by_hand)[:, 0]) > 0
    return sum(int(bit) << t for t, bit in enumerate(said))


for a, b in [(5, 3), (123_456, 654_321), (2**59 - 1, 1)]:
    found = add(a, b)
    print(f"{a} + {b} = {found}", "" if found == a + b else f"(it is {a + b})")
long_xs, long_bits = additions(jax.random.key(9), 200, 60)
wrong = wrong_bits(trained, long_xs, long_bits, by_hand)
print(f"200 sums of 60 bits: {wrong:.3%} of the bits are wrong")

# %% [markdown]
# The states over one such sum. The carry that a step hands on is nowhere in its inputs or
# targets alone, so it must be in the state: the correlation of single units with it, over
# all 200 sums, says where.

# %%
_, states = by_hand(trained[0], jnp.zeros((200, UNITS)), long_xs)
carries = np.asarray((long_bits + long_xs.sum(-1)) % 2)  # into each step
pairs = carries[1:].ravel(), np.asarray(states[:-1]).reshape(-1, UNITS).T
with_carry = np.corrcoef(*pairs)[0, 1:]
for unit in np.argsort(-np.abs(with_carry))[:4]:
    print(
        f"unit {unit:2}: correlation {with_carry[unit]:+.2f} with the carry it hands on"
    )
plots.activity(states[:, 0], unit=r"$h_t$, one unit a row")

# %% [markdown]
# ## The same, with the package
#
# `cells.elman` is the step above with the derivative above; `unrolls.bptt` is the loop, in
# the manner of `lax.scan`. Parameters are a plain dictionary, with the same names. Only the
# loop is another word, and the losses of the whole training agree to rounding. This takes
# about two seconds.

# %%
cell = cells.elman(n_in=2, n_hidden=UNITS)


def package(params, h, xs):
    return unrolls.bptt(cell, params, h, xs)


_, same = train(package, EPOCHS, show=False)
print("losses differ by at most", f"{np.abs(same - losses).max():.1e}")
print("first and last loss", f"{same[0]:.4f}, {same[-10:].mean():.4f}")

# %% [markdown]
# ## What a derivation is good for
#
# XLA says how much temporary memory a compiled gradient takes, without running it.
# Differentiating the plain loop keeps several arrays of the size of the states, and adds up
# the gradient of $W_h$ step by step. By hand we keep the states, and sum once. The package
# cuts time into stretches, so that the $\delta_t$ of all steps need not exist at once
# either. This takes about two seconds.


# %%
def megabytes(runner, T, B, H):
    big = cells.elman(8, H)
    shapes = jax.eval_shape(big.init, jax.random.key(0))
    inputs, h = (jax.ShapeDtypeStruct(s, jnp.float32) for s in [(T, B, 8), (B, H)])

    def total(params, h, xs):
        return (runner(params, h, xs)[1] ** 2).sum()

    program = jax.jit(jax.grad(total)).lower(shapes, h, inputs).compile()
    return program.memory_analysis().temp_size_in_bytes / 1e6


def package_of(params, h, xs):
    return unrolls.bptt(cells.elman(8, h.shape[-1]), params, h, xs)


sizes = (64, 8, 32) if QUICK else (512, 64, 128)
plots.bars(
    {
        "jax.grad of lax.scan": megabytes(run, *sizes),
        "by hand, as above": megabytes(by_hand, *sizes),
        "unrolls.bptt": megabytes(package_of, *sizes),
    },
    unit="temporary memory of one gradient, MB",
)

# %% [markdown]
# ## On from here
#
# - [vanishing_gradients](vanishing_gradients.ipynb): what (4) does over many steps, and what
#   gates change;
# - [bring_your_own_cell](bring_your_own_cell.ipynb): the same for a step of your own;
# - [memory](memory.ipynb): when even the states are too many.
