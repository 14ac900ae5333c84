"""`haiku.dynamic_unroll`."""

import haiku as hk

from benchmarks._cases import Case
from benchmarks._contestants._contract import Declined, by_layer
from bptt_jax.interop.haiku import to_params


def _make(cell: str, n_in: int, case: Case):
    del n_in
    if cell == "elman":
        raise Declined("hk.VanillaRNN is relu, not tanh")
    if cell == "gru":
        raise Declined("hk.GRU resets before the recurrent product")

    def run(xs):
        core = hk.LSTM(case.H)
        state = core.initial_state(xs.shape[1])
        return hk.dynamic_unroll(core, xs, state, time_major=True)[0]

    network = hk.without_apply_rng(hk.transform(run))

    return to_params, network.apply


haiku = by_layer("haiku.dynamic_unroll", _make)
