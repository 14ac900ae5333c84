"""What users write by hand: a cell in `lax.scan`, gates fused, with and without remat."""

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks._cases import Case
from benchmarks._contestants._contract import by_layer
from benchmarks._lowering import ONE_GRAPH


def elman(p, h, x):
    h = jnp.tanh(x @ p["w_x"] + h @ p["w_h"] + p["b"])
    return h, h


def lstm(p, carry, x):
    h, c = carry
    i, f, g, o = jnp.split(x @ p["w_x"] + h @ p["w_h"] + p["b"], 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def gru(p, h, x):
    a_r, a_z, a_n = jnp.split(x @ p["w_x"] + p["b"], 3, -1)
    q_r, q_z, q_n = jnp.split(h @ p["w_h"], 3, -1)
    r, z = jax.nn.sigmoid(a_r + q_r), jax.nn.sigmoid(a_z + q_z)
    n = jnp.tanh(a_n + r * (q_n + p["b_n"]))
    h = (1 - z) * n + z * h
    return h, h


STEPS = dict(elman=elman, lstm=lstm, gru=gru)


def _layer(wrap):
    def make(cell: str, n_in: int, case: Case):
        del n_in

        def apply(params, xs):
            zeros = jnp.zeros((xs.shape[1], case.H))
            carry = (zeros, zeros) if cell == "lstm" else zeros
            step = wrap(lambda carry, x: STEPS[cell](params, carry, x))
            return lax.scan(step, carry, xs)[1]

        return lambda ours: ours, apply

    return make


scan = by_layer("lax.scan", _layer(lambda step: step))
one_graph = by_layer(
    "lax.scan, one graph", _layer(lambda step: step), lowering=ONE_GRAPH
)
checkpointed = by_layer(
    "lax.scan, jax.checkpoint",
    _layer(lambda step: jax.checkpoint(step, prevent_cse=False)),
)
