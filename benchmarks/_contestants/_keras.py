"""Keras 3 on JAX, batch-major as it wants it."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import keras

from benchmarks._cases import Case
from benchmarks._contestants._contract import by_layer
from bptt_jax.interop.keras import to_weights

LAYERS = dict(
    elman=keras.layers.SimpleRNN, lstm=keras.layers.LSTM, gru=keras.layers.GRU
)


def _make(cell: str, n_in: int, case: Case):
    layer = LAYERS[cell](case.H, return_sequences=True)
    layer.build((case.B, case.T, n_in))
    rest = [v.value for v in layer.non_trainable_variables]

    def convert(w):
        return list(to_weights(w, cells=case.cell_of(n_in)).values())

    def apply(params, xs):
        return layer.stateless_call(params, rest, xs)[0]

    return convert, apply


keras_jax = by_layer("keras (JAX)", _make, batch_major=True)
