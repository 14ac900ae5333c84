"""`flax.linen.RNN`."""

from flax import linen as nn

from benchmarks._cases import Case
from benchmarks._contestants._contract import by_layer
from bptt_jax.interop.flax import to_params

CELLS = dict(elman=nn.SimpleCell, lstm=nn.OptimizedLSTMCell, gru=nn.GRUCell)


def _make(cell: str, n_in: int, case: Case):
    del n_in
    rnn = nn.RNN(CELLS[cell](case.H), time_major=True)

    def convert(w):
        return {"params": to_params(w)}

    return convert, rnn.apply


linen = by_layer("flax.linen.RNN", _make)
