"""Weights of each library in that library's own equations, which need not be installed.

`test_execution.py` and `test_options.py` run the libraries themselves, where they are
there. Here one step of each is written down in NumPy, from its documentation: an order of
gates, a sign or a bias that we take otherwise gives other outputs.
"""

import jax
import numpy as np
import pytest

from bptt_jax import cells
from bptt_jax.interop import equinox, files, flax, haiku, keras, torch, weights
from support.gradients import quick_jit
from support.interop import H, I, inputs, random_like


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def parts(a, n=3):
    return np.split(a, n, -1)


def of_gates(i, f, g, o, c):
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def keras_lstm(w, x, h, c):
    i, f, g, o = parts(x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4)
    return of_gates(i, f, g, o, c)


def keras_gru(w, x, h, c):
    x_z, x_r, x_n = parts(x @ w["kernel"] + w["bias"][0])
    h_z, h_r, h_n = parts(h @ w["recurrent_kernel"] + w["bias"][1])
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    return z * h + (1 - z) * np.tanh(x_n + r * h_n), c


def keras_gru_reset_before(w, x, h, c):
    x_z, x_r, x_n = parts(x @ w["kernel"] + w["bias"])
    w_z, w_r, w_n = parts(w["recurrent_kernel"])
    z, r = sigmoid(x_z + h @ w_z), sigmoid(x_r + h @ w_r)
    return z * h + (1 - z) * np.tanh(x_n + (r * h) @ w_n), c


def keras_simple(w, x, h, c):
    return np.tanh(x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"]), c


def of_rows(w, x, h):
    """Of matrices that stand on the left of a column."""
    bias = {name.removesuffix("_l0"): a for name, a in w.items()}
    first = bias.get("bias_ih", bias.get("bias"))
    second = bias.get("bias_hh", np.zeros_like(first))
    return x @ bias["weight_ih"].T + first, h @ bias["weight_hh"].T + second


def rows_lstm(w, x, h, c):
    return of_gates(*parts(sum(of_rows(w, x, h)), 4), c)


def rows_gru(w, x, h, c):
    of_x, of_h = of_rows(w, x, h)
    (x_r, x_z, x_n), (h_r, h_z, h_n) = parts(of_x), parts(of_h)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * (h_n + w.get("bias_n", 0)))
    return (1 - z) * n + z * h, c


def haiku_lstm(w, x, h, c):
    i, g, f, o = parts(np.concatenate([x, h], -1) @ w["w"] + w["b"], 4)
    return of_gates(i, f + 1, g, o, c)


def haiku_gru(w, x, h, c):
    (x_z, x_r, x_a), (w_z, w_r, w_a) = parts(x @ w["w_i"] + w["b"]), parts(w["w_h"])
    z, r = sigmoid(x_z + h @ w_z), sigmoid(x_r + h @ w_r)
    return (1 - z) * h + z * np.tanh(x_a + (r * h) @ w_a), c


def dense(w, name, a):
    return a @ w[f"{name}/kernel"] + w.get(f"{name}/bias", 0)


def flax_lstm(w, x, h, c):
    each = (dense(w, f"i{k}", x) + dense(w, f"h{k}", h) for k in "ifgo")
    return of_gates(*each, c)


def flax_gru(w, x, h, c):
    r, z = (sigmoid(dense(w, f"i{k}", x) + dense(w, f"h{k}", h)) for k in "rz")
    n = np.tanh(dense(w, "in", x) + r * dense(w, "hn", h))
    return (1 - z) * n + z * h, c


KERAS = keras.to_weights, keras.load_weights
TORCH = torch.to_state_dict, torch.load_state_dict
HAIKU = haiku.to_params, haiku.load_params
EQUINOX = equinox.to_arrays, equinox.load_cells
FLAX = flax.to_params, flax.load_params
BEFORE = dict(reset_after=False)
STEPS = {
    "keras.LSTM": (KERAS, cells.lstm(I, H), keras_lstm),
    "keras.GRU": (KERAS, cells.gru(I, H), keras_gru),
    "keras.GRU, reset before": (
        KERAS,
        cells.gru(I, H, **BEFORE),
        keras_gru_reset_before,
    ),
    "keras.SimpleRNN": (KERAS, cells.elman(I, H), keras_simple),
    "torch.LSTM": (TORCH, cells.lstm(I, H), rows_lstm),
    "torch.GRU": (TORCH, cells.gru(I, H), rows_gru),
    "haiku.LSTM": (HAIKU, cells.lstm(I, H), haiku_lstm),
    "haiku.GRU": (HAIKU, cells.gru(I, H, **BEFORE), haiku_gru),
    "equinox.LSTMCell": (EQUINOX, cells.lstm(I, H), rows_lstm),
    "equinox.GRUCell": (EQUINOX, cells.gru(I, H), rows_gru),
    "flax.LSTMCell": (FLAX, cells.lstm(I, H), flax_lstm),
    "flax.GRUCell": (FLAX, cells.gru(I, H), flax_gru),
}


def short(name: str, library) -> str:
    at = name.replace(".", "/").split("/")
    return "/".join(at[-2:]) if library is FLAX else at[-1]


@pytest.mark.parametrize("name", STEPS)
def test_outputs_are_those_of_the_library_s_equations(name):
    library, cell, step = STEPS[name]
    to, load = library
    shapes = jax.eval_shape(cell.init, jax.random.key(0))
    named = random_like(to(weights.Network(((cell,),), ((random_like(shapes),),))))
    w = {short(k, library): np.asarray(a) for k, a in files.flat(named, "/").items()}
    xs, _ = inputs(H)
    h, want = np.zeros((xs.shape[1], H)), []
    c = h
    for x in xs:
        h, c = step(w, x, h, c)
        want.append(h)
    net = load(named)
    carry = weights.init_carry(net, xs.shape[1:-1])
    _, ys = quick_jit(weights.unroll(net.cells))(net.params, carry, xs)
    np.testing.assert_allclose(ys, np.stack(want), rtol=1e-4, atol=1e-6)
