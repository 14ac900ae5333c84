"""Every option of another library's recurrent layers is right, or refused by name.

One table: what makes a module of another library, and either nothing, so that its outputs
on random inputs are ours, or what the refusal says.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from bptt_jax._jax import enable_x64
from bptt_jax.interop import equinox, flax, haiku, keras, torch, weights
from support.interop import B, H, I, T, normal, random_like, same_bits


@pytest.fixture(autouse=True, scope="module")
def float64():
    """Not here, where the folder has it: others run in float32."""
    with enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


class Case(NamedTuple):
    """make: `(library) -> module`. refused: a pattern; None: it is right.

    part: of the module, what `prefix` chooses.
    """

    make: Callable[[Any], Any]
    refused: str | None = None
    prefix: str = ""
    part: Callable[[Any], Any] = lambda module: module


def outputs(net: weights.Network, xs: np.ndarray) -> np.ndarray:
    carry = weights.init_carry(net, xs.shape[1:-1])
    return np.asarray(weights.unroll(net.cells)(net.params, carry, xs)[1])


XS = normal((T, B, I), 3, 1.0)

# PyTorch


def torch_custom(nn):
    class LayerNormLSTMCell(nn.LSTMCell):
        def forward(self, x, state=None):
            return super().forward(2 * x, state)

    return LayerNormLSTMCell(I, H)


def torch_renamed(nn):
    class Encoder(nn.LSTM):
        """With a name of its own, and PyTorch's forward."""

    return Encoder(I, H)


def torch_in_a_model(nn, **options):
    return nn.ModuleDict(dict(rnn=nn.RNN(I, H, **options), head=nn.Linear(H, 1)))


TORCH = {
    "LSTM": Case(lambda nn: nn.LSTM(I, H)),
    "LSTM, layers, both": Case(lambda nn: nn.LSTM(I, H, 3, bidirectional=True)),
    "LSTM, bias": Case(lambda nn: nn.LSTM(I, H, 2, bias=False)),
    "LSTM, proj_size": Case(lambda nn: nn.LSTM(I, H, 2, proj_size=2)),
    "LSTM, proj_size, both": Case(
        lambda nn: nn.LSTM(I, H, 2, proj_size=3, bidirectional=True, bias=False)
    ),
    "LSTM, batch_first": Case(lambda nn: nn.LSTM(I, H, batch_first=True)),
    "LSTM, dropout, eval": Case(lambda nn: nn.LSTM(I, H, 2, dropout=0.5).eval()),
    "LSTM, dropout": Case(
        lambda nn: nn.LSTM(I, H, 2, dropout=0.5),
        r"dropout: LSTM trains with dropout=0.5",
    ),
    "LSTM, dropout, not trained": Case(lambda nn: nn.LSTM(I, H, 1, dropout=0.5)),
    "GRU": Case(lambda nn: nn.GRU(I, H, 2, bidirectional=True)),
    "GRU, bias": Case(lambda nn: nn.GRU(I, H, 2, bias=False)),
    "GRU, dropout": Case(
        lambda nn: nn.GRU(I, H, 2, dropout=0.5), "dropout: GRU trains"
    ),
    "RNN": Case(lambda nn: nn.RNN(I, H, 2)),
    "RNN, relu": Case(lambda nn: nn.RNN(I, H, 2, nonlinearity="relu", bias=False)),
    "in a model, relu": Case(
        lambda nn: torch_in_a_model(nn, nonlinearity="relu"), prefix="rnn."
    ),
    "in a model, dropout": Case(
        lambda nn: torch_in_a_model(nn, num_layers=2, dropout=0.1),
        "dropout: RNN",
        "rnn.",
    ),
    "in a model, no prefix": Case(
        torch_in_a_model, "weights: rnn.weight_ih_l0: unknown key; of a larger"
    ),
    "LSTMCell": Case(lambda nn: nn.LSTMCell(I, H)),
    "LSTMCell, bias": Case(lambda nn: nn.LSTMCell(I, H, bias=False)),
    "GRUCell": Case(lambda nn: nn.GRUCell(I, H)),
    "GRUCell, bias": Case(lambda nn: nn.GRUCell(I, H, bias=False)),
    "RNNCell": Case(lambda nn: nn.RNNCell(I, H)),
    "RNNCell, relu": Case(lambda nn: nn.RNNCell(I, H, nonlinearity="relu")),
    "a list of cells": Case(
        lambda nn: nn.ModuleList([nn.LSTMCell(I, H), nn.LSTMCell(H, H)]), "unknown key"
    ),
    "one of a list": Case(
        lambda nn: nn.ModuleList([nn.LSTMCell(I, H), nn.LSTMCell(H, H)]), prefix="0."
    ),
    "own forward": Case(torch_custom, "expected nn.RNN, .* got LayerNormLSTMCell"),
    "own name": Case(torch_renamed),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch(name):
    pytorch = pytest.importorskip("torch")
    case = TORCH[name]
    pytorch.manual_seed(0)
    module = case.make(pytorch.nn)
    if case.refused:
        with pytest.raises(ValueError, match=case.refused):
            torch.load_state_dict(module, prefix=case.prefix)
        return
    net = torch.load_state_dict(module, prefix=case.prefix)
    part = module.get_submodule(case.prefix[:-1])
    close(outputs(net, XS), torch_outputs(pytorch, part))
    state = {case.prefix + k: a.detach().numpy() for k, a in part.state_dict().items()}
    options = dict(activation=jax.nn.relu) if "relu" in name else {}
    again = torch.load_state_dict(state, prefix=case.prefix, **options)
    assert again.cells == net.cells
    assert same_bits(again.params, net.params)
    back = torch.to_state_dict(net, prefix=case.prefix, like=module)
    assert same_bits(back, state)


def torch_outputs(pytorch, module):
    xs = pytorch.from_numpy(XS)
    with pytorch.no_grad():
        if not hasattr(module, "num_layers"):
            state, ys = None, []
            for x in xs:
                state = module(x, state)
                ys.append(state[0] if isinstance(state, tuple) else state)
            return pytorch.stack(ys).numpy()
        if module.batch_first:
            return module(xs.transpose(0, 1))[0].transpose(0, 1).numpy()
        return module(xs)[0].numpy()


def close(ours, theirs):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


# Keras


def in_a_row(*make, name="net"):
    """A `Sequential` of what `make` makes, `(layers) -> layer` each."""

    def made(k):
        layers = [m(k.layers) for m in make]
        return k.Sequential([k.Input((T, I)), *layers], name=name)

    return made


def functional(body):
    """A functional model; `body: (layers, x) -> outputs`."""

    def make(k):
        x = k.Input((T, I))
        return k.Model(x, body(k.layers, x))

    return make


def lstm(n=H, **options):
    return lambda layers: layers.LSTM(n, return_sequences=True, **options)


def gru(n=H, **options):
    return lambda layers: layers.GRU(n, return_sequences=True, **options)


def simple(n=H, **options):
    return lambda layers: layers.SimpleRNN(n, return_sequences=True, **options)


def rnn(*cells, **options):
    """`RNN` of cells; of several, as Keras stacks them."""

    def make(layers):
        made = [cell(layers) for cell in cells]
        cell = made if len(made) > 1 else made[0]
        return layers.RNN(cell, return_sequences=True, **options)

    return make


def both(inner, backward=None, **options):
    def make(layers):
        if backward is not None:
            options["backward_layer"] = backward(layers)
        return layers.Bidirectional(inner(layers), **options)

    return make


def own_cell(layers):
    """The cell of Keras's own example: no activation, and names like those of others."""

    class MinimalRNNCell(layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = self.state_size = units

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
            square = (self.units, self.units)
            self.recurrent_kernel = self.add_weight(
                shape=square, name="recurrent_kernel"
            )

        def call(self, x, states):
            h = x @ self.kernel + states[0] @ self.recurrent_kernel
            return h, [h]

    return MinimalRNNCell(H)


def own_layer(layers):
    class Doubled(layers.LSTM):
        def call(self, xs, **kwargs):
            return 2 * super().call(xs, **kwargs)

    return Doubled(H, return_sequences=True)


def own_model(k):
    class Residual(k.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = lstm(I)(k.layers), lstm()(k.layers)

        def call(self, xs):
            return self.second(xs + self.first(xs))

    model = Residual()
    model(np.ones((B, T, I), np.float32))
    return model


def named_tanh(x):
    return 2 * x


named_tanh.__name__ = "tanh"


def used(k):
    layer = k.layers.LSTM(H, return_sequences=True, stateful=True)
    layer(np.ones((B, T, I), np.float32))
    return layer


def reset(k):
    layer = used(k)
    layer.reset_state()
    return layer


def layer(make):
    """A layer alone, built."""

    def built(k):
        made = make(k.layers)
        made.build((B, T, I))
        return made

    return built


def cell(kind, *args, **options):
    return lambda layers: getattr(layers, kind)(*args, **options)


LSTM_CELL, GRU_CELL, SIMPLE_CELL = (
    cell(f"{name}Cell", H) for name in ("LSTM", "GRU", "SimpleRNN")
)
KERAS = {
    # SimpleRNN
    "SimpleRNN": Case(layer(simple())),
    "SimpleRNN, relu, no bias": Case(layer(simple(activation="relu", use_bias=False))),
    "SimpleRNN, sigmoid": Case(layer(simple(activation="sigmoid"))),
    "SimpleRNN, no activation": Case(
        layer(simple(activation=None)), "tanh, relu, sigmoid, got linear"
    ),
    "SimpleRNN, elu": Case(layer(simple(activation="elu")), "relu, sigmoid, got elu"),
    "SimpleRNN, a function that is called tanh": Case(
        layer(simple(activation=named_tanh)), r"got .*test_options\.tanh"
    ),
    "SimpleRNN, dropout": Case(layer(simple(dropout=0.5, recurrent_dropout=0.5))),
    "SimpleRNN, two activations": Case(
        in_a_row(simple(activation="relu"), simple(3), both(simple(activation="sigmoid")))
    ),
    # LSTM
    "LSTM": Case(layer(lstm())),
    "LSTM, no bias": Case(layer(lstm(use_bias=False))),
    "LSTM, initial bias": Case(layer(lstm(unit_forget_bias=False))),
    "LSTM, dropout": Case(layer(lstm(dropout=0.5, recurrent_dropout=0.3, seed=1))),
    "LSTM, regularized": Case(
        layer(lstm(kernel_regularizer="l2", bias_constraint="non_neg"))
    ),
    "LSTM, unroll": Case(layer(lstm(unroll=True))),
    "LSTM, implementation": Case(layer(lstm(implementation=1))),
    "LSTM, return_state": Case(layer(lstm(return_state=True))),
    "LSTM, activation": Case(
        layer(lstm(activation="relu")), "tanh and sigmoid, got relu and sigmoid"
    ),
    "LSTM, recurrent_activation": Case(
        layer(lstm(recurrent_activation="hard_sigmoid")), "got tanh and hard_sigmoid"
    ),
    "LSTM, no activation": Case(layer(lstm(activation=None)), "got linear and sigmoid"),
    "LSTM, a function that is called tanh": Case(
        layer(lstm(activation=named_tanh)), r"got .*test_options\.tanh and sigmoid"
    ),
    "LSTM, go_backwards": Case(
        layer(lstm(go_backwards=True)), "expected go_backwards=False, got True"
    ),
    "LSTM, stateful": Case(reset),
    "LSTM, stateful with a state": Case(used, "is stateful and has a state"),
    "LSTM, zero_output_for_mask": Case(
        layer(lstm(zero_output_for_mask=True)), "expected zero_output_for_mask=False"
    ),
    "LSTM, half precision": Case(
        layer(lstm(dtype="mixed_bfloat16")), "in float32, .* weights, got bfloat16"
    ),
    "LSTM, own class": Case(layer(own_layer), r"expected one of LSTM, .*\.Doubled"),
    "LSTM, no weights": Case(lambda k: lstm()(k.layers), "has no weights yet"),
    # GRU
    "GRU": Case(layer(gru())),
    "GRU, before": Case(layer(gru(reset_after=False))),
    "GRU, before, no bias": Case(layer(gru(reset_after=False, use_bias=False))),
    "GRU, no bias": Case(layer(gru(use_bias=False, dropout=0.1))),
    "GRU, activation": Case(layer(gru(activation="relu")), "got relu and sigmoid"),
    "GRU, recurrent_activation": Case(
        layer(gru(recurrent_activation="tanh")), "got tanh and tanh"
    ),
    "GRU, go_backwards": Case(layer(gru(go_backwards=True)), "go_backwards=False"),
    "both directions, then one": Case(in_a_row(both(lstm()), gru(2), both(simple()))),
    # RNN(cell)
    "RNN": Case(layer(rnn(LSTM_CELL))),
    "RNN, GRU": Case(layer(rnn(cell("GRUCell", H, reset_after=False)))),
    "RNN, simple": Case(layer(rnn(cell("SimpleRNNCell", H, activation="relu")))),
    "RNN, cell of another name": Case(layer(rnn(cell("LSTMCell", H, name="memory")))),
    "RNN, go_backwards": Case(
        layer(rnn(LSTM_CELL, go_backwards=True)), "go_backwards=False"
    ),
    "RNN, own cell": Case(layer(rnn(own_cell)), r"expected one of LSTMCell, .*\.Minimal"),
    "RNN, activation of the cell": Case(
        layer(rnn(cell("GRUCell", H, activation="elu"))), "got elu and sigmoid"
    ),
    "RNN, half precision": Case(
        layer(rnn(LSTM_CELL, dtype="mixed_float16")), "in float32, .* got float16"
    ),
    # StackedRNNCells
    "stacked": Case(layer(rnn(LSTM_CELL, GRU_CELL, SIMPLE_CELL))),
    "stacked, alike": Case(layer(rnn(LSTM_CELL, LSTM_CELL, LSTM_CELL))),
    "stacked in stacked": Case(
        layer(
            rnn(
                lambda k: k.StackedRNNCells([GRU_CELL(k), SIMPLE_CELL(k)]),
                cell("SimpleRNNCell", 2, activation="relu"),
            )
        )
    ),
    "stacked, own cell": Case(layer(rnn(LSTM_CELL, own_cell)), r"got .*\.MinimalRNNCell"),
    "stacked, gate": Case(
        layer(rnn(LSTM_CELL, cell("LSTMCell", H, recurrent_activation="relu"))),
        "got tanh and relu",
    ),
    "stacked, in both directions": Case(
        layer(both(rnn(LSTM_CELL, LSTM_CELL))), "runs through 2 cells before"
    ),
    # Bidirectional
    "both": Case(layer(both(lstm()))),
    "both, GRU": Case(in_a_row(both(gru()), both(gru(reset_after=False)))),
    "both, sum": Case(layer(both(lstm(), merge_mode="sum")), "'concat', got 'sum'"),
    "both, mul": Case(layer(both(lstm(), merge_mode="mul")), "'concat', got 'mul'"),
    "both, ave": Case(layer(both(lstm(), merge_mode="ave")), "'concat', got 'ave'"),
    "both, apart": Case(layer(both(lstm(), merge_mode=None)), "'concat', got None"),
    "both, own backward_layer": Case(
        layer(both(lstm(), gru(5, go_backwards=True, reset_after=False)))
    ),
    "both, activations of their own": Case(
        layer(both(simple(), simple(activation="relu", go_backwards=True)))
    ),
    "both, backward gate": Case(
        layer(both(lstm(), lstm(activation="relu", go_backwards=True))), "got relu and sig"
    ),
    "both, backward first": Case(
        layer(both(lstm(go_backwards=True), lstm())), "go_backwards=False, got True"
    ),
    "both, half precision": Case(
        layer(both(lstm(), dtype="mixed_bfloat16")), "got bfloat16"
    ),
    # models
    "in a row": Case(in_a_row(lstm(), gru(3), both(simple(2)))),
    "in a row, of other names": Case(in_a_row(lstm(name="bottom"), gru(name="top"))),
    "dropout between": Case(
        in_a_row(lstm(), cell("Dropout", 0.5), cell("SpatialDropout1D", 0.5), lstm(2))
    ),
    "dense between": Case(
        in_a_row(lstm(), cell("Dense", 3), lstm()), "dense.*: expected one of .* got Dense"
    ),
    "activation between": Case(in_a_row(lstm(), cell("ReLU"), lstm()), "got ReLU"),
    "norm between": Case(
        in_a_row(lstm(), cell("LayerNormalization"), lstm()), "got LayerNormalization"
    ),
    "embedding before": Case(
        lambda k: k.Sequential(
            [k.Input((T,)), k.layers.Embedding(9, I, mask_zero=True), lstm()(k.layers)]
        ),
        "got Embedding; of a larger model choose layers by their prefix",
    ),
    "a row in a row": Case(
        lambda k: k.Sequential(
            [in_a_row(lstm(I), gru(I))(k), in_a_row(simple(2), name="up")(k)]
        )
    ),
    "twice the same": Case(
        lambda k: (lambda one: in_a_row(one, one)(k))(
            (lambda made: lambda layers: made)(lstm(I)(k.layers))
        )
    ),
    "functional": Case(functional(lambda k, x: gru(2)(k)(k.Dropout(0.1)(lstm()(k)(x))))),
    "functional, residual": Case(
        functional(lambda k, x: k.Add()([x, lstm(I)(k)(x)])), "layers one after another: "
        "add.* does not take what lstm.* gives, and that alone"
    ),
    "functional, an operation": Case(
        functional(lambda k, x: gru(2)(k)(2.0 * lstm()(k)(x))), "is no layer"
    ),
    "functional, initial state": Case(
        functional(
            lambda k, x: (lambda y: lstm()(k)(y[0], initial_state=y[1:]))(
                lstm(return_state=True)(k)(x)
            )
        ),
        "is called with initial_state=",
    ),
    "functional, the state alone": Case(
        functional(lambda k, x: lstm(return_state=True)(k)(x)[1]), "its outputs are not"
    ),
    "functional, trains": Case(
        functional(lambda k, x: lstm(dropout=0.5)(k)(x, training=True)), "training=True"
    ),
    "functional, two outputs": Case(
        functional(lambda k, x: (lambda y: [y, gru()(k)(y)])(lstm()(k)(x))),
        "its outputs are not those of its last layer",
    ),
    "own model": Case(own_model, r"what a .*\.Residual does with its layers is not known"),
    "over another axis": Case(
        lambda k: k.Sequential(
            [k.Input((T, 2, I)), k.layers.TimeDistributed(lstm()(k.layers))]
        ),
        "got TimeDistributed",
    ),
    "no layers": Case(in_a_row(cell("Dropout", 0.5)), "no recurrent layer"),
    # cells, and parts of models
    "a cell": Case(lambda k: built_cell(LSTM_CELL(k.layers))),
    "by prefix": Case(
        in_a_row(cell("Dense", I), gru(name="chosen"), cell("Dense", 2)),
        prefix="net/chosen/",
        part=lambda model: model.layers[1],
    ),
    "by prefix, dense between": Case(
        in_a_row(lstm(name="x"), cell("Dense", 2), lstm(name="x_1")), "got Dense", "net/x"
    ),
    "by prefix, unknown": Case(in_a_row(lstm()), "no key begins with 'now'", "now"),
    "by prefix, a part": Case(
        in_a_row(both(lstm(), name="b")), "prefix: 'net/b/for' ends within b", "net/b/for"
    ),
    "by prefix, own model": Case(
        own_model, prefix="residual/lstm/", part=lambda model: model.first
    ),
    "by prefix, own model, all": Case(
        own_model, r"does with its layers is not known; of such", "residual/"
    ),
}  # fmt: skip


def built_cell(made):
    made.build((B, I))
    return made


@pytest.fixture(scope="module")
def keras_library():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    library = pytest.importorskip("keras")
    if library.backend.backend() != "jax":
        pytest.skip("Keras has another backend already")
    return library


QUICK = ("SimpleRNN, two activations", "GRU, before", "both", "stacked", "in a row")


def tiered(cases, quick):
    """Refusals and some of the others in the fast tier."""
    quick = {n for n, case in cases.items() if case.refused or n in quick}
    slow = pytest.mark.slow
    return [n if n in quick else pytest.param(n, marks=slow) for n in cases]


@pytest.mark.parametrize("name", tiered(KERAS, QUICK))
def test_keras(name, keras_library):
    case = KERAS[name]
    keras_library.utils.clear_session(free_memory=False)  # or it looks for garbage
    module = case.make(keras_library)
    for k, v in enumerate(module.weights):
        v.assign(normal(v.shape, k))
    if case.refused:
        with pytest.raises(ValueError, match=case.refused):
            keras.load_weights(module, prefix=case.prefix)
        return
    net = keras.load_weights(module, prefix=case.prefix)
    part = case.part(module)
    close(outputs(net, XS), keras_outputs(part))
    if name == "twice the same":
        with pytest.raises(ValueError, match="like: .* is the name of more than one"):
            keras.to_weights(net, like=part)
        return
    named = {v.path: np.asarray(v.value) for v in part.weights}
    back = keras.to_weights(net, like=part)
    assert list(back) == list(named)
    assert same_bits(back, named)


def test_keras_with_an_activation_that_is_said(keras_library):
    module = layer(simple(activation="elu"))(keras_library)
    net = keras.load_weights(module, activation=jax.nn.elu)
    close(outputs(net, XS), keras_outputs(module))


def test_keras_names_say_what_a_cell_is():
    named = {
        n: normal(s, 1) for n, s in dict(kernel=(I, H), recurrent_kernel=(H, H)).items()
    }
    of = lambda folder: {f"{folder}/{n}": a for n, a in named.items()}
    assert keras.load_weights(of("rnn/simple_rnn_cell_3")).params[0][0]["w_x"].any()
    with pytest.raises(ValueError, match="rnn/minimal_rnn_cell/kernel: unknown key"):
        keras.load_weights(of("rnn/minimal_rnn_cell"))
    with pytest.raises(
        ValueError, match=r"recurrent_kernel: expected 4·4 \(LSTM\), got 4"
    ):
        keras.load_weights(of("rnn/lstm_cell"))


def test_keras_stacked_by_name(keras_library):
    module = layer(rnn(LSTM_CELL, LSTM_CELL))(keras_library)
    named = {v.path: np.asarray(v.value) for v in module.weights}
    assert same_bits(
        keras.load_weights(named).params, keras.load_weights(module).params
    )


@pytest.mark.slow
def test_keras_without_sequences(keras_library):
    """The last output; of two directions the last state of each."""
    one = layer(cell("GRU", H))(keras_library)
    close(outputs(keras.load_weights(one), XS)[-1], np.asarray(one(XS.swapaxes(0, 1))))
    two = layer(both(cell("LSTM", H)))(keras_library)
    net = keras.load_weights(two)
    carry = weights.init_carry(net, (B,))
    carry, ys = weights.unroll(net.cells)(net.params, carry, XS)
    theirs = np.asarray(two(XS.swapaxes(0, 1)))
    close(np.concatenate([c.h for c in carry[-1]], -1), theirs)
    assert np.abs(ys[-1] - theirs).max() > 0.01


def keras_outputs(module):
    xs = XS.swapaxes(0, 1)
    if not hasattr(module, "state_size") or hasattr(module, "go_backwards"):
        ys = module(xs)
        ys = ys[0] if isinstance(ys, list | tuple) else ys
        return np.asarray(ys).swapaxes(0, 1)
    states, ys = module.get_initial_state(batch_size=B), []
    for x in XS:
        y, states = module(x, states)
        ys.append(np.asarray(y))
    return np.stack(ys)


# flax

X = XS.swapaxes(0, 1)


def own_flax_cell(nn):
    class Doubled(nn.LSTMCell):
        def __call__(self, carry, x):
            return super().__call__(carry, 2 * x)

    return Doubled


def linen_row(*makers, **options):
    return lambda nn: nn.Sequential([nn.RNN(m(nn), **options) for m in makers])


def linen_both(forward, backward=None, **options):
    backward = backward or forward
    return lambda nn: nn.Bidirectional(
        nn.RNN(forward(nn)), nn.RNN(backward(nn)), **options
    )


def linen_cell(kind, n=H, **options):
    return lambda nn: getattr(nn, kind)(n, **options)


def linen_rnn(kind, options=(), **of_cell):
    return lambda nn: nn.RNN(linen_cell(kind, **of_cell)(nn), **dict(options))


LINEN = {
    "LSTMCell": Case(linen_rnn("LSTMCell")),
    "OptimizedLSTMCell": Case(linen_rnn("OptimizedLSTMCell")),
    "GRUCell": Case(linen_rnn("GRUCell")),
    "MGUCell": Case(linen_rnn("MGUCell")),
    "SimpleCell": Case(linen_rnn("SimpleCell")),
    "SimpleCell, relu, residual": Case(
        linen_rnn("SimpleCell", activation_fn=jax.nn.relu, residual=True)
    ),
    "SimpleCell, elu": Case(
        linen_rnn("SimpleCell", activation_fn=jax.nn.elu), "tanh, relu and sigmoid, got elu"
    ),
    "gate_fn": Case(
        linen_rnn("LSTMCell", gate_fn=jax.nn.hard_sigmoid), "got hard_sigmoid and tanh"
    ),
    "activation_fn": Case(
        linen_rnn("GRUCell", activation_fn=jax.nn.relu), "got sigmoid and relu"
    ),
    "reset_gate": Case(linen_rnn("MGUCell", reset_gate=False), "reset_gate=True, got F"),
    "carry_init": Case(
        linen_rnn("GRUCell", carry_init=jax.nn.initializers.ones), "the carry_init that"
    ),
    "dtype": Case(
        linen_rnn("GRUCell", dtype=jax.numpy.bfloat16), "in float32, .* got dtype=bfloat16"
    ),
    "param_dtype": Case(linen_rnn("GRUCell", dtype=np.float32, param_dtype=np.float32)),
    "reverse": Case(linen_rnn("GRUCell", dict(reverse=True)), "reverse=False, got True"),
    "time_major": Case(linen_rnn("GRUCell", dict(time_major=True))),
    "keep_order, unroll": Case(linen_rnn("GRUCell", dict(keep_order=True, unroll=2))),
    "return_carry": Case(linen_rnn("LSTMCell", dict(return_carry=True))),
    "in a row": Case(linen_row(linen_cell("LSTMCell"), linen_cell("SimpleCell", 2))),
    "in a row, time_major of one": Case(
        lambda nn: nn.Sequential(
            [nn.RNN(nn.GRUCell(H), time_major=True), nn.RNN(nn.GRUCell(H))]
        ),
        "the same time_major in all",
    ),
    "in a row, a function between": Case(
        lambda nn: nn.Sequential([nn.RNN(nn.GRUCell(H)), jax.nn.relu]), "cell, RNN, .* got"
    ),
    "in a row, dense": Case(
        lambda nn: nn.Sequential([nn.RNN(nn.GRUCell(H)), nn.Dense(2)]), "got Dense"
    ),
    "both": Case(linen_both(linen_cell("LSTMCell"))),
    "both, of two kinds": Case(
        linen_both(linen_cell("GRUCell"), linen_cell("SimpleCell", activation_fn=jax.nn.relu))
    ),
    "both, merge_fn": Case(
        linen_both(linen_cell("GRUCell"), merge_fn=jax.numpy.add), "merge_fn .* got add"
    ),
    "both, reverse": Case(
        lambda nn: nn.Bidirectional(
            nn.RNN(nn.GRUCell(H)), nn.RNN(nn.GRUCell(2), reverse=True)
        )
    ),
    "own cell": Case(lambda nn: nn.RNN(own_flax_cell(nn)(H)), r"got .*\.Doubled"),
    "without variables": Case(linen_rnn("LSTMCell"), "has no variables of its own"),
    "convolution": Case(
        lambda nn: nn.ConvLSTMCell(2, (3,)), "LSTMCell, .* got ConvLSTMCell"
    ),
}  # fmt: skip
QUICK_LINEN = ("SimpleCell, relu, residual", "both, reverse", "LSTMCell")


@pytest.mark.parametrize("name", tiered(LINEN, QUICK_LINEN))
def test_linen(name):
    from flax import linen as nn

    case = LINEN[name]
    module = case.make(nn)
    time_major = getattr(module, "time_major", False)
    xs = XS if time_major else X
    if name != "without variables":
        if name == "convolution":
            variables = dict(
                params=dict(hh=dict(kernel=np.ones((3, 2, 8), np.float32)))
            )
        else:
            shapes = jax.eval_shape(module.init, jax.random.key(0), xs)
            variables = random_like(shapes)
        bound = module.bind(variables)
    if case.refused:
        source = module if name == "without variables" else bound
        with pytest.raises(ValueError, match=case.refused):
            flax.load_params(source)
        return
    net = flax.load_params(bound)
    ys = module.apply(variables, xs)
    ys = np.asarray(ys[1] if isinstance(ys, tuple) else ys)
    close(outputs(net, XS), ys if time_major else ys.swapaxes(0, 1))
    relu = dict(activation=jax.nn.relu) if "relu" in name else {}
    if name != "both, of two kinds":
        named = flax.load_params(variables, residual="residual" in name, **relu)
        assert named.cells == net.cells
        assert same_bits(named.params, net.params)


def nnx_rnn(kind, options=(), n_in=I, n=H, **of_cell):
    def make(nnx):
        cell = getattr(nnx, kind)(n_in, n, rngs=nnx.Rngs(0), **of_cell)
        return nnx.RNN(cell, **dict(options))

    return make


def nnx_of(kind, *makers, **options):
    return lambda nnx: getattr(nnx, kind)(*(m(nnx) for m in makers), **options)


def nnx_other_linear(nnx):
    cell = nnx.LSTMCell(I, H, rngs=nnx.Rngs(0))
    cell.ii = nnx.LoRALinear(I, H, lora_rank=1, use_bias=False, rngs=nnx.Rngs(1))
    return nnx.RNN(cell)


NNX = {
    "LSTMCell": Case(nnx_rnn("LSTMCell")),
    "OptimizedLSTMCell": Case(nnx_rnn("OptimizedLSTMCell")),
    "GRUCell": Case(nnx_rnn("GRUCell")),
    "SimpleCell": Case(nnx_rnn("SimpleCell", residual=True, activation_fn=jax.nn.sigmoid)),
    "SimpleCell, elu": Case(nnx_rnn("SimpleCell", activation_fn=jax.nn.elu), "got elu"),
    "gate_fn": Case(nnx_rnn("GRUCell", gate_fn=jax.nn.relu), "got relu and tanh"),
    "carry_init": Case(
        nnx_rnn("GRUCell", carry_init=jax.nn.initializers.ones), "the carry_init that"
    ),
    "dtype": Case(nnx_rnn("GRUCell", dtype=jax.numpy.float16), "got dtype=float16"),
    "reverse": Case(nnx_rnn("GRUCell", dict(reverse=True)), "reverse=False, got True"),
    "time_major": Case(nnx_rnn("GRUCell", dict(time_major=True))),
    "another linear map": Case(nnx_other_linear, "with its own parameters, got LSTMCell"),
    "in a row": Case(
        nnx_of("Sequential", nnx_rnn("LSTMCell"), nnx_rnn("GRUCell", n_in=H))
    ),
    "in a row, dense": Case(
        lambda nnx: nnx.Sequential(
            nnx_rnn("LSTMCell")(nnx), nnx.Linear(H, 2, rngs=nnx.Rngs(0))
        ),
        "got Linear",
    ),
    "both": Case(nnx_of("Bidirectional", nnx_rnn("GRUCell"), nnx_rnn("LSTMCell", n=2))),
    "both, merge_fn": Case(
        nnx_of(
            "Bidirectional", nnx_rnn("GRUCell"), nnx_rnn("GRUCell"), merge_fn=jax.numpy.add
        ),
        "merge_fn .* got add",
    ),
    "own cell": Case(
        lambda nnx: nnx.RNN(own_flax_cell(nnx)(I, H, rngs=nnx.Rngs(0))), r"\.Doubled"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", tiered(NNX, ("both", "SimpleCell")))
def test_nnx(name):
    from flax import nnx

    case = NNX[name]
    module = case.make(nnx)
    nnx.update(module, random_like(nnx.state(module, nnx.Param)))
    if case.refused:
        with pytest.raises(ValueError, match=case.refused):
            flax.load_params(module)
        return
    time_major = getattr(module, "time_major", False)
    ys = module(XS if time_major else X)
    ys = np.asarray(ys)
    net = flax.load_params(module)
    close(outputs(net, XS), ys if time_major else ys.swapaxes(0, 1))
    with pytest.raises(ValueError, match="prefix: goes with names"):
        flax.load_params(module, prefix="cell/")


# Haiku and Equinox


def test_haiku_with_skip_connections():
    hk = pytest.importorskip("haiku")

    def run(xs):
        core = hk.deep_rnn_with_skip_connections([hk.LSTM(H), hk.LSTM(H)])
        return hk.dynamic_unroll(core, xs, core.initial_state(B))[0]

    tree = jax.eval_shape(hk.transform(run).init, jax.random.key(0), XS)
    with pytest.raises(ValueError, match="layer 1: expected 4 .*skip_connections"):
        haiku.load_params(random_like(tree))


def test_equinox_takes_its_own_cells():
    eqx = pytest.importorskip("equinox")

    class Doubled(eqx.nn.GRUCell):
        def __call__(self, x, h, *, key=None):
            return super().__call__(2 * x, h, key=key)

    with pytest.raises(ValueError, match=r"source: expected LSTMCell .*\.Doubled"):
        equinox.load_cells(Doubled(I, H, key=jax.random.key(0)))
    with pytest.raises(
        ValueError, match=r"source: expected .*equinox\.nn\._linear\.Lin"
    ):
        equinox.load_cells([eqx.nn.Linear(I, H, key=jax.random.key(0))])
