"""A mesh of two axes: examples over one, the hidden units of a user's cell over the other.

The cell exchanges its units inside the step, so the loop through time and its backward
hold a collective at every step.
"""

import os
import subprocess
import sys

from support import compiled

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
from jax import lax
from jax.sharding import AxisType, PartitionSpec as P
from bptt_jax import Side, cells, unrolls
from bptt_jax._jax import to_varying
from support.gradients import error

T, B, I, H, PARTS = 7, 4, 3, 8, 2
mesh = jax.make_mesh((2, PARTS), ("data", "model"), axis_types=(AxisType.Auto,) * 2)

def tanh(params, h, z, x):
    h = jnp.tanh(x @ params["w_x"] + z)
    return h, h

def cell_of(step, rows, columns):
    def init(key):
        k_x, k_h = jax.random.split(key)
        return dict(w_x=jax.random.normal(k_x, (I, columns), jnp.float64),
                    w_h=0.5 * jax.random.normal(k_h, (rows, columns), jnp.float64))
    def init_carry(params, batch_shape):
        return jnp.zeros((*batch_shape, columns), jnp.float64)
    return cells.from_step(step, init, init_carry)

def whole(params, h, x):
    return tanh(params, h, h @ params["w_h"], x)

def gathered(params, h, x):  # columns of w_h on each device, and all units before
    units = lax.all_gather(h, "model", axis=h.ndim - 1, tiled=True)
    return tanh(params, h, units @ params["w_h"], x)

def summed(params, h, x):  # columns again, from rows of zeros but for a device's own
    units = jnp.zeros((*h.shape[:-1], H), h.dtype)
    first = lax.axis_index("model") * h.shape[-1]
    units = lax.dynamic_update_slice_in_dim(
        to_varying(units, ("data", "model")), h, first, h.ndim - 1)
    return tanh(params, h, lax.psum(units, "model") @ params["w_h"], x)

def apart(params, h, x):  # the mutant: units of other devices are not seen
    units = jnp.concatenate([h] * PARTS, -1)
    return tanh(params, h, units @ params["w_h"], x)

rng = np.random.default_rng(0)
at = (dict(w_x=rng.normal(size=(I, H)), w_h=0.5 * rng.normal(size=(H, H))),
      rng.normal(size=(B, H)), rng.normal(size=(T, B, I)))
resets, d_ys, d_h = rng.random((T, B)) < 0.3, rng.normal(size=(T, B, H)), rng.normal(size=(B, H))

def gradient(cell, unroll, params, carry, xs, resets, d_ys, d_h):
    def loss(params, carry, xs):
        h, ys = unroll(cell, params, carry, xs, Side(resets=resets))
        return (ys * d_ys).sum() + (h * d_h).sum(), ys
    return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(params, carry, xs)

columns, states, by_time = P(None, "model"), P("data", "model"), P(None, "data")
weights, outputs = dict(w_x=columns, w_h=columns), P(None, "data", "model")

def sharded(step, unroll):
    cell = cell_of(step, H, H // PARTS)
    def part(*at):
        (loss, ys), grads = gradient(cell, unroll, *at)
        return (lax.psum(loss, ("data", "model")), ys), grads
    f = jax.jit(jax.shard_map(
        part, mesh=mesh, in_specs=(weights, states, by_time, by_time, outputs, states),
        out_specs=((P(), outputs), (weights, states, by_time))))
    return f(*at, resets, d_ys, d_h)

def chunked(*at):
    return unrolls.bptt(*at, chunk=3)

def few(*at):
    return unrolls.checkpointed(*at, chunk=2, slots=2)

want = gradient(cell_of(whole, H, H), unrolls.scan, *at, resets, d_ys, d_h)
assert min(np.abs(a).max() for a in jax.tree.leaves(want)) > 1e-2

def off(step, unroll):
    pairs = zip(jax.tree.leaves(sharded(step, unroll)), jax.tree.leaves(want), strict=True)
    return max(error(a, b) for a, b in pairs)

for step, unroll in ((gathered, chunked), (summed, chunked), (gathered, few)):
    assert off(step, unroll) < 1e-12, (step, unroll, off(step, unroll))
assert off(apart, chunked) > 1e-2
print("equal")
"""


def test_hidden_units_over_one_axis_and_examples_over_another():
    """The gradient of the whole layer on one device; default settings of `shard_map`."""
    environment = {
        **os.environ,
        **compiled.environment(),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "equal\n", done.stderr[-3000:]
