"""Equinox cells in `lax.scan`, a sequence at a time under `jax.vmap`, as it documents."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from benchmarks._cases import Case
from benchmarks._contestants._contract import Declined, by_layer


def _make(cell: str, n_in: int, case: Case):
    if cell == "elman":
        raise Declined("Equinox has no simple recurrent cell")
    make = dict(lstm=eqx.nn.LSTMCell, gru=eqx.nn.GRUCell)[cell]
    module = make(n_in, case.H, key=jax.random.key(0))
    static = eqx.partition(module, eqx.is_array)[1]

    def convert(w):
        def where(m):
            return (m.weight_ih, m.weight_hh, m.bias)

        new = eqx.tree_at(where, module, (w["w_x"].T, w["w_h"].T, w["b"]))
        if cell == "gru":
            new = eqx.tree_at(lambda m: m.bias_n, new, w["b_n"])
        return eqx.filter(new, eqx.is_array)

    def apply(params, xs):
        one = eqx.combine(params, static)
        zeros = jnp.zeros(case.H)

        def step(carry, x):
            carry = one(x, carry)
            return carry, carry[0] if cell == "lstm" else carry

        def sequence(xs):
            return lax.scan(step, (zeros, zeros) if cell == "lstm" else zeros, xs)[1]

        return jax.vmap(sequence, in_axes=1, out_axes=1)(xs)

    return convert, apply


equinox = by_layer("equinox", _make)
