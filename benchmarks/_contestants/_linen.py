"""`flax.linen.RNN`."""

import jax.numpy as jnp
from flax import linen as nn

from benchmarks._cases import Case
from benchmarks._contestants._contract import by_layer

CELLS = dict(elman=nn.SimpleCell, lstm=nn.OptimizedLSTMCell, gru=nn.GRUCell)


def from_ours(cell: str, w: dict) -> dict:
    if cell == "elman":
        return dict(i=dict(kernel=w["w_x"], bias=w["b"]), h=dict(kernel=w["w_h"]))
    names = dict(lstm="ifgo", gru="rzn")[cell]
    params: dict = {}
    for name, kernel in zip(names, jnp.split(w["w_x"], len(names), -1), strict=True):
        params[f"i{name}"] = dict(kernel=kernel)
    for name, kernel in zip(names, jnp.split(w["w_h"], len(names), -1), strict=True):
        params[f"h{name}"] = dict(kernel=kernel)
    with_bias = "h" if cell == "lstm" else "i"
    for name, bias in zip(names, jnp.split(w["b"], len(names), -1), strict=True):
        params[f"{with_bias}{name}"]["bias"] = bias
    if cell == "gru":
        params["hn"]["bias"] = w["b_n"]
    return params


def layers_of(RNN: type, *, time_major: bool = True):
    """What `by_layer` makes a contestant of: layers of `RNN`, flax's or one like it."""

    def make(cell: str, n_in: int, case: Case):
        del n_in
        rnn = RNN(CELLS[cell](case.H), time_major=time_major)

        def convert(w):
            return {"params": {"cell": from_ours(cell, w)}}

        return convert, rnn.apply

    return make


linen = by_layer("flax.linen.RNN", layers_of(nn.RNN))
