"""cuDNN's LSTM through `jax.experimental.rnn`; NVIDIA GPUs only, batch-major."""

import jax.numpy as jnp
from jax.experimental import rnn

from benchmarks._cases import Case
from benchmarks._contestants._contract import Declined, whole_network
from bptt_jax.interop.cudnn import to_flat


def _make(case: Case):
    if case.cell != "lstm":
        raise Declined("jax.experimental.rnn has the LSTM alone")

    def apply(params, xs):
        zeros = jnp.zeros((case.depth, case.B, case.H))
        lengths = jnp.full((case.B,), case.T, jnp.int32)
        return rnn.lstm(
            xs,
            zeros,
            zeros,
            params,
            lengths,
            input_size=case.I,
            hidden_size=case.H,
            num_layers=case.depth,
            dropout=0.0,
            bidirectional=False,
        )[0]

    return to_flat, apply


cudnn = whole_network("jax.experimental.rnn (cuDNN)", _make, batch_major=True)
