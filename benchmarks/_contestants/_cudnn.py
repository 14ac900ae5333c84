"""cuDNN's LSTM through `jax.experimental.rnn`; NVIDIA GPUs only, batch-major."""

import jax.numpy as jnp
from jax.experimental import rnn

from benchmarks._cases import Case
from benchmarks._contestants._contract import Declined, whole_network


def _make(case: Case):
    if case.cell != "lstm":
        raise Declined("jax.experimental.rnn has the LSTM alone")

    def convert(ours):
        kernels = [w[n].T.ravel() for w in ours for n in ("w_x", "w_h")]
        biases = [b for w in ours for b in (w["b"], jnp.zeros_like(w["b"]))]
        return jnp.concatenate([*kernels, *biases])

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

    return convert, apply


cudnn = whole_network("jax.experimental.rnn (cuDNN)", _make, batch_major=True)
