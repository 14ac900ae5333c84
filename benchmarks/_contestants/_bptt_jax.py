"""This project, as its README uses it, and with what a device may want otherwise."""

from benchmarks._cases import Case
from benchmarks._contestants._contract import Contestant, whole_network
from benchmarks._lowering import ONE_GRAPH, PLAIN, ROLLED, Lowering
from bptt_jax import layers, unrolls
from bptt_jax.layers import STATES


def _network(case: Case, wrap, chunk: int | None = None):
    stack = layers.stack(*map(layers.recurrent, case.cells))
    layer = wrap(stack)

    def apply(params, xs):
        carry = layer.init_carry(params, xs.shape[1:-1])
        return unrolls.bptt(layer, params, carry, xs, chunk=chunk)[1]

    return tuple, apply


def made(
    name: str, lowering: Lowering = PLAIN, chunk: int | None = None, save=None
) -> Contestant:
    """With another lowering, stretches of so many steps, another choice of what is kept."""

    def wrap(net):
        return net if save is None else layers.with_options(net, save=save)

    return whole_network(
        name, lambda case: _network(case, wrap, chunk), lowering=lowering
    )


bptt = made("bptt_jax")
remat = whole_network("bptt_jax remat", lambda case: _network(case, layers.remat))
states = made("bptt_jax, states alone", save=STATES)
rolled = made("bptt_jax, rolled", ROLLED)
one_graph = made("bptt_jax, one graph", ONE_GRAPH)
