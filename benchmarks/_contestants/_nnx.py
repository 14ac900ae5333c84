"""`flax.nnx.RNN`. Its GRU has no second bias; the benchmark's is zero."""

from flax import nnx

from benchmarks._cases import Case
from benchmarks._contestants._contract import by_layer

CELLS = dict(elman=nnx.SimpleCell, lstm=nnx.OptimizedLSTMCell, gru=nnx.GRUCell)


def layers_of(RNN: type, *, time_major: bool = True):
    """What `by_layer` makes a contestant of: layers of `RNN`, flax's or one like it."""

    def make(cell: str, n_in: int, case: Case):
        module = RNN(CELLS[cell](n_in, case.H, rngs=nnx.Rngs(0)), time_major=time_major)
        graph, state, rest = nnx.split(module, nnx.Param, ...)

        def convert(w):
            dense_i, dense_h = dict(kernel=w["w_x"]), dict(kernel=w["w_h"])
            (dense_h if cell == "lstm" else dense_i)["bias"] = w["b"]
            return dict(cell=dict(dense_i=dense_i, dense_h=dense_h))

        def apply(params, xs):
            own = nnx.merge_state(state)  # a copy, so that tracers stay in this call
            nnx.replace_by_pure_dict(own, params)
            return nnx.merge(graph, own, rest)(xs, rngs=nnx.Rngs(0))

        return convert, apply

    return make


nnx_rnn = by_layer("flax.nnx.RNN", layers_of(nnx.RNN))
