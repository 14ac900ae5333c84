"""XLA's temp memory of one training gradient, in units of T·B·H floats.

`python benchmarks/memory.py` compiles (it runs nothing), prints a table and writes
`benchmarks/results/memory.json`. The gradient is that of a sum of squares with respect
to parameters and inputs, at (B, T, I, H) = (64, 256, 128, 256); for the character model
(82 symbols, embedding 64, LSTM 256, readout, cross-entropy) with respect to parameters.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
from jax import lax

from bptt_jax import Side, cells, layers, models, objectives, unrolls

B, T, I, H = 64, 256, 128, 256
SYMBOLS, EMBEDDING = 82, 64
RESULTS = pathlib.Path(__file__).parent / "results" / "memory.json"


def temp(f, *args) -> float:
    compiled = jax.jit(f).lower(*args).compile()
    return round(compiled.memory_analysis().temp_size_in_bytes / (4 * T * B * H), 2)


def remat_scan(cell, params, carry, xs):
    """The one line to beat: the body of a scan under `jax.checkpoint`."""
    body = jax.checkpoint(functools.partial(cell.step, params), prevent_cse=False)
    return lax.scan(body, carry, xs)


def layer_row(cell) -> dict[str, float]:
    params, xs = jax.eval_shape(cell.init, jax.random.key(0)), jnp.zeros((T, B, I))
    lean = layers.remat(layers.recurrent(cell))
    states = layers.recurrent(cell, save=layers.STATES)

    def gradient(unrolled):
        def loss(params, xs):
            carry, ys = unrolled(params, cell.init_carry(params, (B,)), xs)
            return (ys**2).sum()

        return temp(jax.value_and_grad(loss, (0, 1)), params, xs)

    real, resets = jnp.ones((T, B), bool), jnp.zeros((T, B), bool)
    sides = functools.partial(unrolls.bptt, cell, side=Side(real, resets))
    return {
        "jax.grad of lax.scan": gradient(functools.partial(unrolls.scan, cell)),
        "its body under jax.checkpoint": gradient(functools.partial(remat_scan, cell)),
        "bptt": gradient(functools.partial(unrolls.bptt, cell)),
        "bptt, states alone": gradient(functools.partial(unrolls.bptt, states)),
        "bptt, mask and resets": gradient(sides),
        "bptt, remat": gradient(functools.partial(unrolls.bptt, lean)),
    }


def character_row() -> dict[str, float]:
    model = models.symbols(SYMBOLS, EMBEDDING, (cells.lstm(EMBEDDING, H),), SYMBOLS, H)
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jnp.zeros((T, B), jnp.int32)
    layer = layers.with_loss(model, objectives.softmax_cross_entropy)

    def plain(params):
        xs = params[0]["embedding"][tokens]
        carry = model.init_carry(params, (B,))[1]
        _, hs = unrolls.scan(cells.lstm(EMBEDDING, H), params[1], carry, xs)
        logits = hs @ params[2]["kernel"] + params[2]["bias"]
        return objectives.softmax_cross_entropy(logits, tokens).sum()

    def whole(layer):
        def loss(params):
            carry, side = layer.init_carry(params, (B,)), Side(targets=tokens)
            return unrolls.bptt(layer, params, carry, tokens, side)[1].sum()

        return temp(jax.value_and_grad(loss), params)

    return {
        "jax.grad of lax.scan": temp(jax.value_and_grad(plain), params),
        "bptt": whole(layer),
        "bptt, states alone": whole(layers.with_options(layer, save=layers.STATES)),
        "bptt, remat": whole(layers.remat(layer)),
    }


def main():
    rows = {
        name: layer_row(make(I, H))
        for name, make in dict(
            elman=cells.elman, lstm=cells.lstm, gru=cells.gru
        ).items()
    }
    rows["character model"] = character_row()
    result = dict(jax=jax.__version__, shape=dict(B=B, T=T, I=I, H=H), temp=rows)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    for name, row in rows.items():
        print(name, row)


if __name__ == "__main__":
    main()
