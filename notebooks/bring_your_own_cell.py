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
# # Bring your own cell
#
# A cell of your own, in three steps: as a plain function, with its derivative taken by JAX;
# with a derivative by hand; and the proof that it is right, which a wrong one does not
# pass. Then the cell is used like any other. All of it takes about half a minute on two CPU
# cores.

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
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from bptt_jax import (
    Cell,
    StepVJP,
    cells,
    diagnose,
    estimators,
    layers,
    models,
    plots,
    tasks,
    train,
    unrolls,
    verify,
)
from bptt_jax.types import Gates, Outer, Sum

# %% [markdown]
# ## The cell: coupled oscillators
#
# The coupled oscillatory network of Rusch and Mishra (2021, "coRNN"): each unit is a damped
# oscillator with position $y$ and velocity $z = y'$, driven by the inputs and by the other
# units, $y'' = \tanh(x W_x + y W_y + y' W_z + b) - \gamma \, y - \varepsilon \, y'$. One step
# of length $\Delta$, in which the new velocity moves the position:
#
# $$
# \begin{aligned}
# a_t &= x_t W_x + y_{t-1} W_y + z_{t-1} W_z + b & (1) \\
# z_t &= z_{t-1} + \Delta \, (\tanh a_t - \gamma \, y_{t-1} - \varepsilon \, z_{t-1})
#   & (2) \\
# y_t &= y_{t-1} + \Delta \, z_t & (3)
# \end{aligned}
# $$
#
# The state is the pair $(y, z)$, the output is $y$. A cell is three pure functions:
# `init(key)` makes parameters, `init_carry(params, batch_shape)` the first state, and
# `step(params, carry, x)` is (1) to (3). The step takes any leading batch axes, and what
# varies is an argument.

# %%
N_IN, UNITS = 2, 8 if QUICK else 32
DELTA, GAMMA, EPSILON = 0.1, 1.0, 1.0


class Oscillators(NamedTuple):
    """Positions and velocities, `[..., H]` each (also of their cotangents)."""

    y: Any
    z: Any


def init(key):
    k_x, k_y, k_z = jax.random.split(key, 3)
    return dict(
        w_x=jax.random.normal(k_x, (N_IN, UNITS)),
        w_y=jax.random.normal(k_y, (UNITS, UNITS)) / UNITS**0.5,
        w_z=jax.random.normal(k_z, (UNITS, UNITS)) / UNITS**0.5,
        b=jnp.zeros(UNITS),
    )


def init_carry(params, batch_shape):
    zeros = jnp.zeros((*batch_shape, UNITS), params["b"].dtype)
    return Oscillators(zeros, zeros)


def step(params, carry, x):
    y, z = carry
    from_units = y @ params["w_y"] + z @ params["w_z"]
    a = x @ params["w_x"] + from_units + params["b"]  # (1)
    z = z + DELTA * (jnp.tanh(a) - GAMMA * y - EPSILON * z)  # (2)
    y = y + DELTA * z  # (3)
    return Oscillators(y, z), y


# %% [markdown]
# ## Without a derivation
#
# `cells.from_step` takes the derivative from `jax.vjp`, and cuts it as backpropagation
# through time wants it: no copy of a weight for each step, and each weight's gradient as
# one contraction over time. This is enough to train, stack, mask and checkpoint the cell.
#
# `verify.check` computes the gradient in float64 in three ways: by `unrolls.bptt`, by
# `jax.grad` of the plain loop, and by differences of the forward pass, with random
# cotangents of outputs and final state, without and with masks and resets. It raises where
# they differ. Here for two lengths and a batch of three; by itself it takes more. This takes
# about ten seconds.

# %%
generic = cells.from_step(step, init, init_carry)
sides = ("plain",) if QUICK else ("plain", "resets", "mask", "both")
few = dict(lengths=(2,) if QUICK else (1, 7), chunks=(3,), batch_shapes=((3,),))
check = functools.partial(verify.check, inputs=N_IN, **few, sides=sides)


def show(report):
    for row in report.rows:
        print(
            f"{row.leaf:14} against jax.grad {row.hand_grad:.0e},"
            f" against differences {row.hand_truth:.0e}"
        )
    print(report.cases, "cases, wrong:", len(report.wrong))


show(check(generic, name="oscillators, by jax.vjp"))

# %% [markdown]
# What a step may not do is close over an array: it would be a constant of the compiled
# program, without a gradient, and one network could not be told from another in a sweep. It
# is refused in words:

# %%
frequencies = jnp.linspace(0.5, 2.0, UNITS)


def with_constant(params, carry, x):
    carry, y = step(params, carry, x)
    return carry, y * frequencies


try:
    cells.from_step(with_constant, init, init_carry)
except TypeError as error:
    print(error)

# %% [markdown]
# (NumPy arrays and Python numbers, such as $\Delta$ here, are fine: they are constants.)
#
# ## With a derivation
#
# Write $\mathrm{d}v$ for $\partial L / \partial v$. Let $\mathrm{d}y_t$ be all that reaches
# $y_t$, from later steps and from the output of step t, and $\mathrm{d}z_t$ what reaches
# $z_t$ from later steps. Going backward through (3), (2), (1):
#
# $$
# \begin{aligned}
# \mathrm{d}z_t &\leftarrow \mathrm{d}z_t + \Delta \, \mathrm{d}y_t & (4) \\
# \delta_t &= \Delta \, (1 - \tanh^2 a_t) \odot \mathrm{d}z_t & (5) \\
# \mathrm{d}y_{t-1} &= \mathrm{d}y_t - \Delta \gamma \, \mathrm{d}z_t + \delta_t W_y^\top
#   & (6) \\
# \mathrm{d}z_{t-1} &= (1 - \Delta \varepsilon) \, \mathrm{d}z_t + \delta_t W_z^\top
#   & (7)
# \end{aligned}
# $$
#
# $$
# \begin{aligned}
# \mathrm{d}W_x = \sum_t x_t^\top \delta_t , \quad
# \mathrm{d}W_y = \sum_t y_{t-1}^\top \delta_t , \quad
# \mathrm{d}W_z = \sum_t z_{t-1}^\top \delta_t , \quad
# \mathrm{d}b = \sum_t \delta_t , \quad
# \mathrm{d}x_t = \delta_t W_x^\top & \qquad (8)
# \end{aligned}
# $$
#
# Then ask of each quantity *when* it can be computed, and whether it is a product with a
# weight or what is done unit by unit. A `StepVJP` has six parts.
#
# - $x_t W_x + b$ needs no state: `project`, for all steps at once;
# - the product with the state, (1), and the tanh of (2): `gates`. Forward it goes step by
#   step; on the way back all steps are one large product, or the gates were kept;
# - the rest of the step, (2) and (3), unit by unit: `move`;
# - $\Delta (1 - \tanh^2 a_t)$ needs the gates only: `local`, for all steps at once;
# - (4) to (7) need what comes from later steps: `backward`, step by step. It is linear in
#   the cotangents;
# - (8) needs all $\delta_t$: `factors` says what each gradient is the sum of, an `Outer` for
#   a weight and a `Sum` for a bias, and the library does the products.


# %%
def project(params, xs):
    return xs @ params["w_x"] + params["b"]


def gates(params, carry, u):  # of one step, or of all at once
    a = u + carry.y @ params["w_y"] + carry.z @ params["w_z"]  # (1)
    return Gates({"g": jnp.tanh(a)})


def move(params, gates, carry):
    y, z = carry
    z = z + DELTA * (gates.named["g"] - GAMMA * y - EPSILON * z)  # (2)
    y = y + DELTA * z  # (3)
    return Oscillators(y, z), y


def local(params, gates, carries, nexts):
    return DELTA * (1 - gates.named["g"] ** 2)


def backward(params, slope, d_carry, d_out):
    d_y = d_carry.y + d_out
    d_z = d_carry.z + DELTA * d_y  # (4)
    delta = slope * d_z  # (5)
    return Oscillators(
        d_y - DELTA * GAMMA * d_z + delta @ params["w_y"].T,  # (6)
        (1 - DELTA * EPSILON) * d_z + delta @ params["w_z"].T,  # (7)
    ), delta


def factors(params, xs, carries, slopes, deltas):
    of_params = dict(  # (8)
        w_x=Outer(xs, deltas),
        w_y=Outer(carries.y, deltas),
        w_z=Outer(carries.z, deltas),
        b=Sum(deltas),
    )
    return of_params, deltas @ params["w_x"].T


def couplings(f, params):
    return params | dict(w_y=f(params["w_y"]), w_z=f(params["w_z"]))


vjp = StepVJP(project, gates, move, local, backward, factors)
oscillators = Cell(
    init,
    init_carry,
    step,
    vjp,
    output=lambda carry: carry.y,
    name="oscillators",
    pointwise=True,
    couplings=couplings,
)

# %% [markdown]
# `output=` says that the output is a part of the state, so it is stored once; `pointwise=`
# that `move` and `local` work unit by unit; `couplings=` which matrices let a unit see the
# past of others. Is it right? This takes about ten seconds.

# %%
show(check(oscillators, name="oscillators, by hand"))

# %% [markdown]
# ## A mistake is caught
#
# Two mistakes that are easily made. In the first the coupling of position and velocity,
# (4), is forgotten; in the second the damping of (7). The report names the arguments
# whose gradient is wrong, and which of the three computations is to blame. Here only
# cases without masks and resets are asked; it takes about three seconds.


# %%
def without_coupling(params, slope, d_carry, d_out):
    d_y, d_z = d_carry.y + d_out, d_carry.z  # (4) is missing
    delta = slope * d_z
    return Oscillators(
        d_y - DELTA * GAMMA * d_z + delta @ params["w_y"].T,
        (1 - DELTA * EPSILON) * d_z + delta @ params["w_z"].T,
    ), delta


def without_damping(params, slope, d_carry, d_out):
    d_y = d_carry.y + d_out
    d_z = d_carry.z + DELTA * d_y
    delta = slope * d_z
    return Oscillators(
        d_y - DELTA * GAMMA * d_z + delta @ params["w_y"].T,
        d_z + delta @ params["w_z"].T,  # (7) without Δε
    ), delta


for mistake in (without_coupling, without_damping):
    wrong = oscillators._replace(vjp=vjp._replace(backward=mistake))
    try:
        verify.check(wrong, inputs=N_IN, **few, sides=("plain",))
    except verify.GradientError as error:
        print(f"{mistake.__name__}: caught")
        for row in error.report.wrong:
            print(f"    {row.leaf:14} error {row.error:.0e}, wrong: {row.wrong}")

# %% [markdown]
# ## What the derivation is good for
#
# XLA's account of the temporary memory of one gradient, in units of the states y or z of
# all steps (T·B·H floats). What is kept of each step is a choice: the states, and the gates
# are computed again; or the gates, too, `save=layers.GATES`. It takes about three seconds.

# %%
STEPS, BATCH = (32, 8) if QUICK else (256, 64)
shapes = jax.eval_shape(init, jax.random.key(0))
inputs = jax.ShapeDtypeStruct((STEPS, BATCH, N_IN), jnp.float32)


def units(cell, unroll):
    def total(params, xs):
        carry = init_carry(params, (BATCH,))
        return (unroll(cell, params, carry, xs)[1] ** 2).sum()

    program = jax.jit(jax.grad(total, (0, 1))).lower(shapes, inputs).compile()
    bytes_ = program.memory_analysis().temp_size_in_bytes
    return bytes_ / (4 * STEPS * BATCH * UNITS)


kept = layers.recurrent(oscillators, save=layers.GATES)
plots.bars(
    {
        "jax.grad of lax.scan": units(generic, unrolls.scan),
        "from_step, unrolls.bptt": units(generic, unrolls.bptt),
        "by hand, unrolls.bptt": units(oscillators, unrolls.bptt),
        "by hand, gates kept": units(kept, unrolls.bptt),
    },
    unit="temporary memory of one gradient, T·B·H floats",
)

# %% [markdown]
# ## It is a cell like any other
#
# It goes into models, stacks, `layers.remat`, `unrolls.checkpointed`, masks, estimators and
# diagnoses. On the adding problem (two of T numbers are marked; say their sum at the end)
# beside an Elman network of the same size. This takes about ten seconds.

# %%
T, EVERY, CHUNKS = (20, 4, 2) if QUICK else (60, 50, 30)
task = tasks.adding(batch=20 if QUICK else 50, T=T)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))


def trained(model):
    estimator = estimators.exact(model, task.objective)
    state = train.init(model, estimator, optimizer, task.train, jax.random.key(1))
    advance = train.many_steps(estimator, optimizer, task.train.batch)
    losses = []
    for i in range(CHUNKS):
        state, metrics = advance(state, task.train.read(i * EVERY, EVERY))
        losses.append(np.asarray(metrics["loss"]).mean())
    return state.params, losses


of_oscillators = models.features((oscillators,), 1, UNITS)
of_elman = models.features((cells.elman(N_IN, UNITS),), 1, UNITS)
params, losses = trained(of_oscillators)
_, of_others = trained(of_elman)
at = EVERY * np.arange(1, CHUNKS + 1)
plots.curves(
    {"oscillators": (at, losses), "Elman": (at, of_others)},
    unit="mean squared error",
    levels={"says 1": 1 / 6},
    log=True,
)

# %% [markdown]
# Why it learns over such times: an oscillator with a small step forgets slowly. The gradient
# of the loss at the last step, by lag, before training. About three seconds.

# %%
batch = task.train.batch(jnp.int32(0), jax.random.key(2))


def lags(model):
    start = jax.jit(model.init)(jax.random.key(1))
    found = diagnose.by_lag(model, task.objective, start, batch, lags=T)
    return np.asarray(found.norms)


plots.by_lag({"oscillators": lags(of_oscillators), "Elman": lags(of_elman)})

# %% [markdown]
# And in less memory, one word: `layers.remat`. The gradient is the same to rounding. About
# two seconds.

# %%
lean = layers.stack(layers.remat(layers.recurrent(oscillators)), layers.dense(UNITS, 1))
key = jax.random.key(3)
found = []
for name, model in {"as it is": of_oscillators, "layers.remat": lean}.items():
    exact = jax.jit(estimators.exact(model, task.objective).grad)
    found.append(jax.tree.leaves(exact(params, (), batch, key)[1]))
    memory = exact.lower(params, (), batch, key).compile().memory_analysis()
    print(f"{name:12} {memory.temp_size_in_bytes / 1e6:.2f} MB of temporary memory")
apart = max(np.abs(np.subtract(a, b)).max() / np.abs(a).max() for a, b in zip(*found))
print(f"gradients differ by {apart:.0e}")

# %% [markdown]
# How a cell of the library looks, and the same walk for a leaky integrator:
# `docs/adding-a-cell.md`.
