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
# # Inside a larger model: flax and optax
#
# In research code the recurrent part is one module among others. This notebook puts it into
# a flax model that classifies sequences of different lengths (embedding, recurrent core,
# normalisation, attention over time, readout), with initial weights of one's own, masks,
# frozen parameters and gradient accumulation by optax; in linen, in nnx, and as a change of
# one import. All of it takes about half a minute on two CPU cores.

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
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx
from jax import lax

from bptt_jax import Cell, Side, cells, plots, tasks, unrolls
from bptt_jax.interop import linen as linen_by_hand
from bptt_jax.interop import nnx as nnx_by_hand

# %% [markdown]
# ## The core as a linen module
#
# A cell is a record of functions, so it is an attribute of the module, like a size. Its
# parameters are a pytree that `self.param` draws; an unroll runs it. That is all that there
# is to it.


# %%
class Recurrent(nn.Module):
    """`[T, ..., I] -> [T, ..., H]`, a cell through time."""

    cell: Cell
    unroll: Any = unrolls.bptt

    @nn.compact
    def __call__(self, xs, mask=None):
        params = self.param("cell", self.cell.init)
        carry = self.cell.init_carry(params, xs.shape[1:-1])
        _, hs = self.unroll(self.cell, params, carry, xs, Side(mask=mask))
        return hs


class Classifier(nn.Module):
    """Tokens `[T, B]` and a mask of those that are there -> logits `[B, classes]`."""

    core: nn.Module
    symbols: int = 6
    classes: int = 4

    @nn.compact
    def __call__(self, tokens, mask):
        xs = nn.Embed(self.symbols, 16, name="embed")(tokens)
        hs = nn.LayerNorm(name="norm")(self.core(xs, mask))
        scores = nn.Dense(1, name="attend")(hs)
        scores = jnp.where(mask[..., None], scores, -jnp.inf)
        pooled = (nn.softmax(scores, 0) * hs).sum(0)
        return nn.Dense(self.classes, name="readout")(pooled)


# %% [markdown]
# ## The data, and the mask
#
# Temporal order (Hochreiter, Schmidhuber 1997): two symbols, A or B each, come early and in
# the middle among distractors; the class is which two, in which order. Sequences here have
# different lengths, and what follows the end is padding. Drawing them takes about two
# seconds.


# %%
T, B, UNITS = (12, 8, 8) if QUICK else (40, 64, 32)
task = tasks.temporal_order(batch=B, T=T)


def draw(key):
    """Tokens `[T, B]`, mask `[T, B]`, labels `[B]`."""
    k_batch, k_length = jax.random.split(key)
    batch = task.train.batch(None, k_batch)
    lengths = jax.random.randint(k_length, (B,), 7 * T // 10, T + 1)
    mask = unrolls.sequence_mask(lengths, T)
    tokens = jnp.where(mask, batch.inputs, 5)
    return tokens, mask, batch.side.targets.targets[-1]


tokens, mask, labels = jax.jit(draw)(jax.random.key(0))
print("one sequence", np.asarray(tokens[:, 0]), "is of class", labels[0])
print("it has", int(mask[:, 0].sum()), "steps")

# %% [markdown]
# ## Initial weights of one's own
#
# Initialisers are arguments of the cell, `(key, shape, dtype)`. A factory gives the same
# object for equal arguments, so that nothing is compiled twice; that includes the
# initialiser, which should therefore be a function with a name, made once.
#
# Or change the parameters afterwards: they are plain dictionaries. Here the recurrent
# matrices are 0.9 times the identity, and the biases of the forget gate are set so that the
# units forget at different rates. This takes about two seconds.


# %%
def nearly_identity(key, shape, dtype):
    del key
    return 0.9 * jnp.eye(*shape, dtype=dtype)


lstm = cells.lstm(16, UNITS, recurrent_kernel_init=nearly_identity)
print(
    "the same object:",
    lstm is cells.lstm(16, UNITS, recurrent_kernel_init=nearly_identity),
)
model = Classifier(Recurrent(lstm))
params = jax.jit(model.init)(jax.random.key(1), tokens, mask)["params"]
core = params["core"]["cell"]
b = core["b"].at[UNITS : 2 * UNITS].set(jnp.linspace(0, 4, UNITS))
params = params | dict(core=dict(cell=core | dict(b=b)))
print(jax.tree.map(jnp.shape, params))

# %% [markdown]
# ## Padding is not read
#
# Other symbols after the end change nothing, and neither does NaN among features: the mask
# holds the state there, so that `hs[-1]` is each sequence's last real output. About three
# seconds.

# %%
apply = jax.jit(lambda params, tokens: model.apply({"params": params}, tokens, mask))
other = jnp.where(mask, tokens, 0)
same = bool((apply(params, tokens) == apply(params, other)).all())
print("logits are the same whatever the padding is:", same)
features = jax.random.normal(jax.random.key(5), (T, B, 16))
padded = jnp.where(mask[..., None], features, jnp.nan)
hs = Recurrent(lstm).apply({"params": params["core"]}, padded, mask)
last = mask.sum(0) - 1
print("states are finite:", bool(jnp.isfinite(hs).all()))
print("the last ones:", bool((hs[-1] == hs[last, jnp.arange(B)]).all()))

# %% [markdown]
# ## The gradient, by hand and by JAX
#
# The whole model is differentiated by `jax.grad`, which meets the hand-derived backward of
# the core and goes on behind it. With `unrolls.scan` in its place, JAX differentiates the
# loop. This takes about five seconds.


# %%
def loss_of(model):
    def loss(params, batch):
        tokens, mask, labels = batch
        logits = model.apply({"params": params}, tokens, mask)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return each.mean(), (logits.argmax(-1) == labels).mean()

    return loss


def gradient(model):
    return jax.jit(jax.grad(loss_of(model), has_aux=True))


batch = tokens, mask, labels
plain = Classifier(Recurrent(lstm, unrolls.scan))
ours, _ = gradient(model)(params, batch)
theirs, _ = gradient(plain)(params, batch)
for name in params:
    error = max(
        float(np.abs(np.subtract(a, b)).max() / np.abs(b).max())
        for a, b in zip(jax.tree.leaves(ours[name]), jax.tree.leaves(theirs[name]))
    )
    print(f"{name:8} differs by {error:.0e}")

# %% [markdown]
# ## Frozen parameters, a rate for each part
#
# optax sees a tree of parameters and knows nothing of recurrence. Here the embedding stays
# as it is (as one that was trained before would), the core learns at a rate of its own. This
# takes about ten seconds.

# %%
STEPS = 20 if QUICK else 600
labels_of_parts = {
    name: dict(embed="frozen", core="core").get(name, "rest") for name in params
}
optimizer = optax.multi_transform(
    dict(
        frozen=optax.set_to_zero(),
        core=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3)),
        rest=optax.adam(1e-3),
    ),
    labels_of_parts,
)


def train(model, optimizer, params, steps):
    loss = loss_of(model)

    def update(state, key):
        params, opt_state = state
        (value, right), grads = jax.value_and_grad(loss, has_aux=True)(
            params, draw(key)
        )
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), (value, right)

    keys = jax.random.split(jax.random.key(2), steps)
    return lax.scan(update, (params, optimizer.init(params)), keys)


run = jax.jit(train, static_argnums=(0, 1, 3))
(trained, _), (losses, right) = run(model, optimizer, params, STEPS)
for name in params:
    moved = max(
        float(np.abs(np.subtract(a, b)).max())
        for a, b in zip(jax.tree.leaves(trained[name]), jax.tree.leaves(params[name]))
    )
    print(f"{name:8} moved by at most {moved:.3f}")
print(f"right in the last {STEPS // 10} steps: {right[-(STEPS // 10) :].mean():.1%}")
plots.loss(
    np.arange(1, STEPS + 1),
    np.asarray(losses),
    baselines={"chance": float(np.log(4))},
    unit="cross-entropy, nats",
)

# %% [markdown]
# ## Gradient accumulation
#
# A batch that does not fit is cut into parts; `optax.MultiSteps` averages their gradients
# and updates once. The loss is a mean over sequences, and the parts are of one size, so the
# mean of the parts' gradients is the gradient of the whole. (A mean over *steps* would have
# to weigh each part with its real steps.) This takes about five seconds.

# %%
PARTS = 4


def part(i):
    return jax.tree.map(lambda a: a[..., i * B // PARTS : (i + 1) * B // PARTS], batch)


parts = [part(i) for i in range(PARTS)]
sgd = optax.sgd(0.1)
several = optax.MultiSteps(sgd, every_k_schedule=PARTS)
step_gradient = gradient(model)


def updated(optimizer, batches):
    state, now = optimizer.init(params), params
    step = jax.jit(optimizer.update)
    for each in batches:
        grads, _ = step_gradient(now, each)
        updates, state = step(grads, state, now)
        now = optax.apply_updates(now, updates)
    return now


at_once, in_parts = updated(sgd, [batch]), updated(several, parts)
apart = max(
    float(np.abs(np.subtract(a, b)).max())
    for a, b in zip(jax.tree.leaves(at_once), jax.tree.leaves(in_parts))
)
moved = max(
    float(np.abs(np.subtract(a, b)).max())
    for a, b in zip(jax.tree.leaves(at_once), jax.tree.leaves(params))
)
print(f"one update moves parameters by up to {moved:.0e};")
print(f"in parts it is the same but for at most {apart:.0e}")

# %% [markdown]
# Within a part, `layers.remat` or `unrolls.checkpointed` spare memory over time in the same
# model: `Recurrent(lstm, unrolls.checkpointed)`.
#
# ## A change of one import
#
# A model that has `flax.linen.RNN` already keeps its code, its variables and its
# checkpoints: `bptt_jax.interop.linen.RNN` is the same class with the hand-derived backward.
# Its axes are flax's, `[B, T, I]`. This takes about five seconds.

# %%
cell = nn.OptimizedLSTMCell(UNITS)
before, after = nn.RNN(cell), linen_by_hand.RNN(cell)
inputs = jax.random.normal(jax.random.key(3), (B, T, 16))
variables = jax.jit(before.init)(jax.random.key(4), inputs)


def total(rnn):
    return jax.jit(
        jax.grad(lambda variables: (rnn.apply(variables, inputs) ** 2).sum())
    )


pairs = zip(*(jax.tree.leaves(total(rnn)(variables)) for rnn in (before, after)))
apart = max(float(np.abs(np.subtract(a, b)).max() / np.abs(a).max()) for a, b in pairs)
print(f"gradients differ by {apart:.0e}")


def megabytes(rnn):
    memory = total(rnn).lower(variables).compile().memory_analysis()
    return memory.temp_size_in_bytes / 1e6


plots.bars(
    {"flax.linen.RNN": megabytes(before), "interop.linen.RNN": megabytes(after)},
    unit="temporary memory of one gradient, MB",
)

# %% [markdown]
# ## nnx
#
# In nnx, modules hold their parameters. The import changes in the same way, or the core is a
# module with an `nnx.Param` for each of the cell's parameters. This takes about five seconds.


# %%
class Core(nnx.Module):
    """`[T, ..., I] -> [T, ..., H]`, a cell through time."""

    def __init__(self, cell, rngs):
        self.cell = cell
        weights = cell.init(rngs.params())
        self.weights = nnx.Dict({k: nnx.Param(w) for k, w in weights.items()})

    def __call__(self, xs, mask=None):
        params = {k: w[...] for k, w in self.weights.items()}
        carry = self.cell.init_carry(params, xs.shape[1:-1])
        return unrolls.bptt(self.cell, params, carry, xs, Side(mask=mask))[1]


class Tagger(nnx.Module):
    """Tokens `[T, B]` -> logits of each step, `[T, B, classes]`."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(6, 16, rngs=rngs)
        self.core = Core(cells.gru(16, UNITS), rngs)
        self.readout = nnx.Linear(UNITS, 4, rngs=rngs)

    def __call__(self, tokens, mask):
        return self.readout(self.core(self.embed(tokens), mask))


tagger = Tagger(nnx.Rngs(0))
optimizer = nnx.Optimizer(tagger, optax.adam(1e-2), wrt=nnx.Param)


@nnx.jit
def update(tagger, optimizer, batch):
    tokens, mask, labels = batch

    def loss(tagger):
        logits = tagger(tokens, mask)[-1]  # of each sequence's last real step
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    value, grads = nnx.value_and_grad(loss)(tagger)
    optimizer.update(tagger, grads)
    return value


values = [float(update(tagger, optimizer, batch)) for _ in range(4 if QUICK else 40)]
print(f"one batch, again and again: loss {values[0]:.3f}, then {values[-1]:.3f}")

of_flax = nnx.RNN(nnx.GRUCell(16, UNITS, rngs=nnx.Rngs(1)))
of_ours = nnx_by_hand.RNN(of_flax.cell)
ours, theirs = (nnx.jit(lambda rnn: rnn(inputs))(rnn) for rnn in (of_ours, of_flax))
print(f"nnx.RNN and interop.nnx.RNN differ by {np.abs(ours - theirs).max():.0e}")
