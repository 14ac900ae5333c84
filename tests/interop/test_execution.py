"""Outputs and gradients are those of the library that the weights are for.

The gradient of a random linear function of all outputs, with respect to the inputs and
to the weights in that library's own names and shapes. PyTorch, Keras, Haiku and Equinox
are compared where they are installed; `flax.linen` and `jax.experimental.rnn` always.
"""

import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_jax._jax import enable_x64
from bptt_jax.interop import cudnn, equinox, flax, haiku, keras, torch, weights
from bptt_jax.interop._arrays import reordered
from support.interop import (
    Answers,
    B,
    H,
    I,
    T,
    distance,
    inputs,
    ours,
    random_like,
    same_bits,
    theirs,
)

CLOSE = 1e-5


@pytest.fixture(autouse=True, scope="module")
def float64():
    """Not here, where the folder has it: others run in float32 and promote dtypes."""
    with enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def agree(load, named, xs, d_ys, answers: Answers):
    assert distance(ours(load, named, xs, d_ys), answers) < CLOSE


# flax.linen

FLAX = {
    "OptimizedLSTMCell": (2, 2),
    "LSTMCell": (1, 1),
    "GRUCell": (2, 2),
    "SimpleCell": (2, 1),
    "MGUCell": (1, 2),
}
QUICK = ("LSTMCell", "MGUCell")


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FLAX],
)
def test_flax(name):
    from flax import linen as nn

    layers, directions = FLAX[name]

    def layer():
        rnns = [
            nn.RNN(getattr(nn, name)(H), time_major=True) for _ in range(directions)
        ]
        return nn.Bidirectional(*rnns, time_major=True) if directions == 2 else rnns[0]

    model = nn.Sequential([layer() for _ in range(layers)]) if layers > 1 else layer()
    xs, d_ys = inputs(H * directions)
    tree = random_like(jax.eval_shape(model.init, jax.random.key(0), xs)["params"])
    answers = theirs(lambda p, xs: model.apply({"params": p}, xs), tree, xs, d_ys)
    agree(flax.load_params, tree, xs, d_ys, answers)
    assert same_bits(flax.to_params(flax.load_params(tree)), tree)


def test_a_wrong_order_of_gates_is_seen():
    """What the comparison of this file sees."""
    from flax import linen as nn

    model = nn.RNN(nn.LSTMCell(H), time_major=True)
    xs, d_ys = inputs(H)
    tree = random_like(jax.eval_shape(model.init, jax.random.key(0), xs)["params"])
    answers = theirs(lambda p, xs: model.apply({"params": p}, xs), tree, xs, d_ys)

    def wrong(tree):
        params = dict(flax.load_params(tree).params[0][0])
        return weights.network(
            {n: reordered(a, "ifgo", "iogf") for n, a in params.items()}
        )

    assert distance(ours(wrong, tree, xs, d_ys), answers) > 0.01
    assert distance(ours(wrong, tree, xs, 0 * d_ys), answers) > 0.01


# jax.experimental.rnn


@pytest.mark.parametrize("both", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_cudnn(both):
    from jax.experimental import rnn

    layers = 2
    sizes = dict(input_size=I, hidden_size=H, num_layers=layers, bidirectional=both)
    xs, d_ys = inputs(H * (1 + both))
    flat = random_like(rnn.init_lstm_weight(jax.random.key(0), **sizes))

    def apply(flat, xs):
        zeros = jnp.zeros((layers * (1 + both), B, H))
        unpacked = rnn.unpack_lstm_weights(flat, **sizes)
        lengths = jnp.full(B, T, jnp.int32)
        ys, *_ = rnn.lstm_ref(
            xs.swapaxes(0, 1), zeros, zeros, *unpacked, lengths, I, H, layers, 0.0, both
        )
        return ys.swapaxes(0, 1)

    load = lambda flat: cudnn.load_flat(flat, **sizes)
    agree(load, flat, xs, d_ys, theirs(apply, flat, xs, d_ys))
    assert same_bits(cudnn.to_flat(load(flat), like=flat), flat)


# PyTorch

TORCH = {
    "RNN": dict(num_layers=2, bidirectional=True),
    "RNN, relu": dict(nonlinearity="relu", num_layers=2),
    "LSTM": dict(num_layers=2, bidirectional=True),
    "LSTM, projected": dict(num_layers=2, bidirectional=True, proj_size=3),
    "LSTM, no bias": dict(bias=False),
    "GRU": dict(num_layers=2, bidirectional=True),
    "GRU, no bias": dict(bias=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH)
def test_torch(name):
    nn = pytest.importorskip("torch").nn
    import torch as pytorch

    module = getattr(nn, name.split(",")[0])(I, H, **TORCH[name])
    n_out = TORCH[name].get("proj_size", H) * (1 + module.bidirectional)
    xs, d_ys = inputs(n_out)
    state = {k: a.detach().numpy() for k, a in module.state_dict().items()}
    state = random_like(state)
    module.load_state_dict({k: pytorch.from_numpy(a) for k, a in state.items()})
    there = pytorch.tensor(xs, requires_grad=True)
    ys, last = module(there)
    (ys * pytorch.from_numpy(d_ys)).sum().backward()
    d_named = {k: p.grad.numpy() for k, p in module.named_parameters()}
    answers = Answers(ys.detach().numpy(), d_named, there.grad.numpy())
    relu = dict(activation=jax.nn.relu) if "relu" in name else {}
    load = lambda named: torch.load_state_dict(named, **relu)
    agree(load, state, xs, d_ys, answers)

    net = torch.load_state_dict(module)
    assert net.cells == load(state).cells
    back = torch.to_state_dict(net, like=module)
    assert same_bits(back, state)
    module.load_state_dict({k: pytorch.from_numpy(a) for k, a in back.items()})
    _same_final_carry(net, xs, last)


def _same_final_carry(net, xs, last):
    """PyTorch's `h_n` (and `c_n`): layer by layer, each forward and then backward."""
    carry = weights.init_carry(net, (B,))
    carry, _ = weights.unroll(net.cells)(net.params, carry, xs)
    flat = [c for layer in carry for c in layer]
    pairs = [(c.h, c.c) if hasattr(c, "c") else (c,) for c in flat]
    last = last if isinstance(last, tuple) else (last,)
    for i, state in enumerate(last):
        for k, parts in enumerate(pairs):
            there = state[k].detach().numpy()
            np.testing.assert_allclose(parts[i], there, atol=CLOSE)


@pytest.mark.slow
def test_torch_of_a_larger_module(tmp_path):
    pytorch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    model = pytorch.nn.ModuleDict(
        dict(
            rnn=pytorch.nn.RNN(I, H, nonlinearity="relu"), head=pytorch.nn.Linear(H, 1)
        )
    )
    net = torch.load_state_dict(model, prefix="rnn.")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    read = torch.load_state_dict(
        tmp_path / "model.safetensors", prefix="rnn.", activation=jax.nn.relu
    )
    assert read.cells == net.cells
    assert same_bits(read.params, net.params)
    half = torch.load_state_dict(model["rnn"].to(pytorch.bfloat16)).params
    assert half[0][0]["w_x"].dtype == jnp.bfloat16
    pytorch.save(model.state_dict(), tmp_path / "model.pt")
    with pytest.raises(
        ValueError, match="a zip archive, as torch.save makes; expected"
    ):
        torch.load_state_dict(tmp_path / "model.pt")


@pytest.mark.slow
def test_the_example_of_the_page():
    pytest.importorskip("torch")
    page = pathlib.Path(__file__).parents[2] / "docs" / "interop.md"
    (code,) = re.findall(r"```\{.*\} python\n(.*?)```", page.read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(code, str(page), "exec"), names)  # noqa: S102
    assert names["ys"].shape == (20, 4, 16)


# Keras


@pytest.fixture(scope="module")
def keras_layers():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    library = pytest.importorskip("keras")
    if library.backend.backend() != "jax":
        pytest.skip("Keras has another backend already")
    return library


KERAS = {
    "LSTM": {},
    "GRU": {},
    "GRU, before": dict(reset_after=False),
    "GRU, no bias": dict(use_bias=False),
    "SimpleRNN": dict(activation="relu"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KERAS)
def test_keras(name, keras_layers):
    make = getattr(keras_layers.layers, name.split(",")[0])
    one = lambda: make(H, return_sequences=True, **KERAS[name])
    both = lambda: keras_layers.layers.Bidirectional(one())
    model = keras_layers.Sequential([both(), both()] if "GRU" in name else [one()])
    model.build((B, T, I))
    paths = [v.path for v in model.trainable_variables]
    named = random_like({v.path: np.asarray(v.value) for v in model.weights})
    rest = [v.value for v in model.non_trainable_variables]

    def apply(named, xs):
        values = [named[path] for path in paths]
        return model.stateless_call(values, rest, xs.swapaxes(0, 1))[0].swapaxes(0, 1)

    xs, d_ys = inputs(model.output_shape[-1])
    relu = dict(activation=jax.nn.relu) if name == "SimpleRNN" else {}
    load = lambda named: keras.load_weights(named, **relu)
    agree(load, named, xs, d_ys, theirs(apply, named, xs, d_ys))

    model.set_weights([named[v.path] for v in model.weights])
    net = keras.load_weights(model)
    assert net.cells == load(named).cells
    assert same_bits(keras.to_weights(net, like=model), named)
    if "no bias" not in name:
        model.set_weights(list(keras.to_weights(net).values()))
        assert same_bits(keras.load_weights(model).params, net.params)
    keys = [path.split("/")[-3:] for path in keras.to_weights(net)]
    assert [key[-2:] for key in keys][:2] == [path.split("/")[-2:] for path in paths][
        :2
    ]


@pytest.mark.slow
def test_keras_with_activations_that_are_not_ours(keras_layers):
    layer = keras_layers.layers.LSTM(H, recurrent_activation="hard_sigmoid")
    layer.build((B, T, I))
    with pytest.raises(
        ValueError, match="activations tanh and sigmoid, got tanh and ha"
    ):
        keras.load_weights(layer)
    layer = keras_layers.layers.SimpleRNN(H, activation="elu")
    layer.build((B, T, I))
    with pytest.raises(ValueError, match="tanh, relu, sigmoid, got elu"):
        keras.load_weights(layer)


# Haiku


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LSTM", "GRU", "VanillaRNN", "VanillaRNN, one bias"])
def test_haiku(name):
    hk = pytest.importorskip("haiku")
    options = dict(double_bias=False) if "one" in name else {}

    def run(xs):
        make = getattr(hk, name.split(",")[0])
        core = hk.DeepRNN([make(H, **options), make(H, **options)])
        state = core.initial_state(xs.shape[1])
        return hk.dynamic_unroll(core, xs, state, time_major=True)[0]

    network = hk.without_apply_rng(hk.transform(run))
    xs, d_ys = inputs(H)
    tree = random_like(jax.eval_shape(network.init, jax.random.key(0), xs))
    answers = theirs(network.apply, tree, xs, d_ys)
    agree(haiku.load_params, tree, xs, d_ys, answers)
    net = haiku.load_params(tree)
    assert same_bits(haiku.to_params(net, like=tree), tree)
    fresh = haiku.to_params(net)
    if not options:
        assert jax.tree.structure(fresh) == jax.tree.structure(dict(tree))
        ys = jax.jit(network.apply)(fresh, xs)
        assert np.abs(ys - answers.ys).max() < CLOSE


# Equinox


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LSTMCell", "GRUCell", "GRUCell, no bias"])
def test_equinox(name):
    eqx = pytest.importorskip("equinox")
    make = getattr(eqx.nn, name.split(",")[0])
    bias = "no bias" not in name
    pair = [make(I, H, use_bias=bias, key=jax.random.key(k)) for k in (0, 1)]
    pair = random_like(pair)
    arrays, static = eqx.partition(pair, eqx.is_array)

    def run(cell, xs):
        zeros = jnp.zeros(H)
        start = (zeros, zeros) if "LSTM" in name else zeros

        def step(carry, x):
            carry = cell(x, carry)
            return carry, carry[0] if "LSTM" in name else carry

        return lax.scan(step, start, xs)[1]

    def apply(arrays, xs):
        forward, backward = eqx.combine(arrays, static)
        both = lambda xs: jnp.concatenate(
            [run(forward, xs), run(backward, xs[::-1])[::-1]], -1
        )
        return jax.vmap(both, in_axes=1, out_axes=1)(xs)

    xs, d_ys = inputs(2 * H)
    answers = theirs(apply, arrays, xs, d_ys)
    load = lambda pair: equinox.load_cells([pair])
    agree(load, arrays, xs, d_ys, answers)
    net = load(pair)
    if bias:
        back = equinox.to_cells(net)[0]
        assert same_bits(back, pair)
        single = equinox.to_cells(net.params[0][0])
        assert same_bits(single, pair[0])
