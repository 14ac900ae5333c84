"""Equinox cells in `lax.scan`, a sequence at a time under `jax.vmap`, as it documents."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from benchmarks._cases import Case
from benchmarks._contestants._contract import Declined, by_layer
from bptt_jax.interop.equinox import to_cells


def _make(cell: str, n_in: int, case: Case):
    if cell == "elman":
        raise Declined("Equinox has no simple recurrent cell")
    make = dict(lstm=eqx.nn.LSTMCell, gru=eqx.nn.GRUCell)[cell]
    module = make(n_in, case.H, key=jax.random.key(0))
    static = eqx.partition(module, eqx.is_array)[1]

    def convert(w):
        return eqx.filter(to_cells(w), eqx.is_array)

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
