"""Every option of another library's recurrent layers is right, or refused by name.

One table: what makes a module of another library, and either nothing, so that its outputs
on random inputs are ours, or what the refusal says.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from bptt_jax._jax import enable_x64
from bptt_jax.interop import torch, weights
from support.interop import B, H, I, T, normal, same_bits


@pytest.fixture(autouse=True, scope="module")
def float64():
    """Not here, where the folder has it: others run in float32."""
    with enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


class Case(NamedTuple):
    """make: `(library) -> module`. refused: a pattern; None: it is right."""

    make: Callable[[Any], Any]
    refused: str | None = None
    prefix: str = ""


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
