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
# # First steps: a recurrent cell, its gradient, and what it costs
#
# `bptt_jax` runs a recurrent cell through time and brings gradients back through it by
# backpropagation through time, derived by hand. This notebook takes about a minute on a
# CPU. It needs the package (`pip install .` in a clone of the repository); on Colab the
# runtime's own JAX is used.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bptt_jax import Side, cells, layers, plots, unrolls, verify

print("JAX", jax.__version__, jax.devices())

# %% [markdown]
# ## A cell, an unroll
#
# A cell is a record of pure functions; its parameters are a plain pytree. Arrays are
# time-major. An *unroll* runs the cell through time: `unrolls.scan` is `lax.scan`
# differentiated by JAX, `unrolls.bptt` has the hand-derived backward. Nothing else in the
# code changes.

# %%
cell = cells.lstm(n_in=3, n_hidden=32)
params = cell.init(jax.random.key(0))
xs = jax.random.normal(jax.random.key(1), (200, 8, 3))  # [time, batch, features]


def loss(params, xs, unroll):
    carry, hs = unroll(cell, params, cell.init_carry(params, (8,)), xs)
    return jnp.mean(hs**2) + jnp.mean(carry.c**2)


by_hand = jax.grad(loss)(params, xs, unrolls.bptt)
by_jax = jax.grad(loss)(params, xs, unrolls.scan)
for name in params:
    difference = jnp.abs(by_hand[name] - by_jax[name]).max()
    largest = jnp.abs(by_jax[name]).max()
    print(
        f"{name:4} {str(by_hand[name].shape):10} differs by {difference / largest:.1e}"
    )

# %% [markdown]
# ## What it costs
#
# XLA's own account of the temporary memory of one gradient, without running it. With
# `layers.remat` a stretch of time is run again on the way back instead of being stored.

# %%
T, B, I, H = 256, 64, 128, 256
wide = cells.lstm(I, H)
shapes = jax.eval_shape(wide.init, jax.random.key(0))
inputs = jax.ShapeDtypeStruct((T, B, I), jnp.float32)


def megabytes(layer, unroll):
    def loss(params, xs):
        carry = wide.init_carry(params, (B,))
        return jnp.sum(unroll(layer, params, carry, xs)[1] ** 2)

    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(shapes, inputs).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 1e6


lean = layers.remat(layers.recurrent(wide))
memory = {
    "scan, by JAX": megabytes(wide, unrolls.scan),
    "bptt": megabytes(wide, unrolls.bptt),
    "bptt, remat": megabytes(lean, unrolls.bptt),
}
plots.bars(memory, unit="temporary memory of one gradient, MB")

# %% [markdown]
# ## Sequences of different lengths
#
# `Side(mask=...)` marks the steps that are there. What lies in the padding is never read,
# NaN included, and `hs[-1]` is each sequence's last real output.

# %%
lengths = jnp.array([200, 150, 120, 90, 60, 30, 10, 1])
mask = unrolls.sequence_mask(lengths, 200)
padded = jnp.where(mask[..., None], xs, jnp.nan)
_, hs = unrolls.bptt(
    cell, params, cell.init_carry(params, (8,)), padded, Side(mask=mask)
)
print("finite:", bool(jnp.isfinite(hs).all()))
print("last real output:", bool((hs[-1] == hs[lengths - 1, jnp.arange(8)]).all()))

# %% [markdown]
# ## A cell of your own, checked
#
# `cells.from_step` makes a cell from any step written in JAX; its derivative is taken by
# `jax.vjp`, cut so that weight gradients stay out of the loop. `verify.check` compares the
# gradient with `jax.grad` and with differences of the forward pass. The same call checks a
# derivative that you wrote by hand.


# %%
def step(p, h, x):
    h = 0.9 * h + 0.1 * jnp.tanh(x @ p["w_x"] + h @ p["w_h"])
    return h, h


def init(key):
    k_x, k_h = jax.random.split(key)
    w_h = jax.random.normal(k_h, (5, 5)) / 5**0.5
    return dict(w_x=jax.random.normal(k_x, (3, 5)), w_h=w_h)


def init_carry(p, batch_shape):
    return jnp.zeros((*batch_shape, 5), p["w_h"].dtype)


leaky = cells.from_step(step, init, init_carry)
print(verify.check(leaky, inputs=3, lengths=(1, 7), name="leaky"))

# %% [markdown]
# ## Training, and eight seeds at once
#
# The next value of a sine wave, with optax. Training is a pure function of its key, so
# eight runs are one `vmap`.

# %%
net = layers.stack(layers.recurrent(cells.gru(1, 16)), layers.dense(16, 1))
adam = optax.adam(1e-2)
wave = jnp.sin(0.3 * jnp.arange(65.0)[:, None, None] + jnp.arange(16.0)[:, None])


def error(params):
    carry = net.init_carry(params, (16,))
    return jnp.mean((unrolls.bptt(net, params, carry, wave[:-1])[1] - wave[1:]) ** 2)


def train(key):
    def update(state, _):
        params, opt_state = state
        value, grads = jax.value_and_grad(error)(params)
        updates, opt_state = adam.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    params = net.init(key)
    return jax.lax.scan(update, (params, adam.init(params)), length=200)[1]


losses = np.asarray(jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 8)))
print("last error of each seed:", np.array2string(losses[:, -1], precision=5))
plots.curves(
    {"GRU of 16 units, eight seeds": (np.arange(losses.shape[1]), losses)},
    unit="mean squared error",
    log=True,
)
