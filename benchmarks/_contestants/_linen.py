"""`flax.linen.RNN`."""

from flax import linen as nn

from benchmarks._cases import Case
from benchmarks._contestants._contract import by_layer
from bptt_jax.interop.flax import to_params

CELLS = dict(elman=nn.SimpleCell, lstm=nn.OptimizedLSTMCell, gru=nn.GRUCell)


def layers_of(RNN: type, *, time_major: bool = True):
    """What `by_layer` makes a contestant of: layers of `RNN`, flax's or one like it."""

    def make(cell: str, n_in: int, case: Case):
        rnn = RNN(CELLS[cell](case.H), time_major=time_major)

        def convert(w):
            return {"params": to_params(w, cells=case.cell_of(n_in))}

        return convert, rnn.apply

    return make


linen = by_layer("flax.linen.RNN", layers_of(nn.RNN))
