"""This project, as its README uses it."""

from benchmarks._cases import Case
from benchmarks._contestants._contract import whole_network
from bptt_jax import layers, unrolls
from bptt_jax.layers import STATES


def _network(case: Case, wrap):
    stack = layers.stack(*map(layers.recurrent, case.cells))
    layer = wrap(stack)

    def apply(params, xs):
        carry = layer.init_carry(params, xs.shape[1:-1])
        return unrolls.bptt(layer, params, carry, xs)[1]

    return tuple, apply


bptt = whole_network("bptt_jax", lambda case: _network(case, lambda layer: layer))
remat = whole_network("bptt_jax remat", lambda case: _network(case, layers.remat))
states = whole_network(
    "bptt_jax, states alone",
    lambda case: _network(case, lambda net: layers.with_options(net, save=STATES)),
)
