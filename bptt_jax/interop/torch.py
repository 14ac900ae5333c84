"""`torch.nn.RNN`, `LSTM` (also with `proj_size`) and `GRU`: any depth, both directions;
and `RNNCell`, `LSTMCell`, `GRUCell`.

    weight_ih_l{k}  [G·H, I]    w_xᵀ       gates in the order i, f, g, o or r, z, n
    weight_hh_l{k}  [G·H, O]    w_hᵀ
    weight_hr_l{k}  [P, H]      w_rᵀ       of a projection
    bias_ih_l{k}    [G·H]       b   = bias_ih + bias_hh        (GRU's n: bias_ih alone)
    bias_hh_l{k}    [G·H]       b_n = bias_hh of n             (GRU alone)

and the same with `_reverse` for the direction from the end; a cell's names are those
without `_l{k}`. Two biases that are only
ever added become one; `to_state_dict` puts it in the first, and the second is zero,
unless it is shown with `like=` how it was split.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bptt_jax.interop import _layouts, weights
from bptt_jax.interop._arrays import no_bias, split_as
from bptt_jax.interop._named import Group, arrays, grouped, loaded, written
from bptt_jax.interop.weights import PROJECTED_LSTM, Network, Sizes
from bptt_jax.types import PyTree

MODULES = "nn.RNN, nn.LSTM, nn.GRU or one of their cells"
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}
_theirs = _layouts.of_part("torch")
_LAYOUTS = _layouts.by_kind("torch")
_BY_GATES = _layouts.by_gates("torch")


def load_state_dict(
    source: Any, *, prefix: str = "", activation: Callable | None = None
) -> Network:
    """A network from a module, its state dict, or a safetensors file of that.

    Args:
      source: an `nn.RNN`, `nn.LSTM`, `nn.GRU`, one of their cells, or a module that has
        one; a mapping of names to tensors or arrays; a path.
      prefix: what comes before `weight_ih_l0` in a larger model, "encoder.lstm." say.
      activation: of `nn.RNN`, which no state dict holds; None: what a given `nn.RNN`
        says, else tanh. Shapes tell RNN, GRU and LSTM apart.

    Returns:
      `(cells, params)`, NumPy arrays of their own; `weights.unroll(cells)` runs them, on
      inputs `[T, B, I]` whatever `batch_first` says.

    Raises:
      ValueError: keys that are missing or unknown, wrong shapes or dtypes, a damaged
        file; the message names file and key. A module whose `forward` is not PyTorch's,
        or that trains with dropout between its layers (`module.eval()` has none).

    >>> import numpy as np
    >>> from bptt_jax import cells, interop
    >>> state = {"weight_ih_l0": np.ones((12, 3)), "weight_hh_l0": np.ones((12, 4)),
    ...          "bias_ih_l0": np.ones(12), "bias_hh_l0": np.ones(12)}
    >>> found, params = interop.torch.load_state_dict(state)
    >>> found == ((cells.gru(3, 4),),), params[0][0]["b_n"].shape
    (True, (4,))
    """
    groups = _groups(source, prefix)
    params = [map(_ours, layer) for layer in groups]
    return weights.network(params, activation or _activation(source, prefix))


def to_state_dict(
    params: PyTree, *, prefix: str = "", like: Any = None, cells: Any = None
) -> dict[str, Any]:
    """The state dict of the PyTorch module with these parameters, NumPy arrays.

    Args:
      params: of a `Network`, a stack of cells, or one cell: LSTM (also projected), GRU
        with the reset after the product, or Elman; all layers of one kind and size.
      prefix: of all names.
      like: what the network was loaded from (as `source`): its names are taken (those of
        a cell), and a sum of two biases is split as there wherever it has not changed,
        so what was loaded comes back bit for bit. Without it the second bias is zero.
      cells: what they are, in the same places, where shapes do not say it: those of
        `cells.elman` are those of `cells.ctrnn`, too. A `Network` has them.

    Returns:
      `module.load_state_dict({k: torch.from_numpy(v) for k, v in ….items()})` takes it.

    >>> import jax
    >>> from bptt_jax import cells, interop
    >>> params = cells.lstm(3, 4).init(jax.random.key(0))
    >>> sorted(interop.torch.to_state_dict(params))
    ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0']
    """
    whole = weights.parts(params, cells, loaded=like is not None)
    weights.directions(whole, "PyTorch")
    _check_same(whole)
    groups = None if like is None else _groups(like, prefix)

    def spell(k, d, short):
        return prefix + _spell(k, d, short)

    return written(whole, _theirs, spell, groups, _as_before)


def _activation(source: Any, prefix: str) -> Callable:
    """What a given module says, or PyTorch's default; refuses what is not as it says."""
    if not hasattr(source, "get_submodule"):
        return ACTIVATIONS["tanh"]
    if prefix.endswith("."):
        source = source.get_submodule(prefix[:-1])
    kind = type(source)
    if getattr(kind.forward, "__module__", "") != "torch.nn.modules.rnn":
        raise ValueError(
            f"source: expected {MODULES}, got {kind.__name__}, which can do something "
            "else with the same weights; its state_dict() in its place is read as theirs"
        )
    dropout = getattr(source, "dropout", 0)
    if dropout and source.training and source.num_layers > 1:
        raise ValueError(
            f"dropout: {kind.__name__} trains with dropout={dropout} between its layers, "
            "which no weights hold: module.eval() is the network without it, and "
            "layers.dropout goes between layers of ours"
        )
    return ACTIVATIONS[getattr(source, "nonlinearity", "tanh")]


_NAME = re.compile(
    r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(\d{1,6})(_reverse)?"
)
_OF_CELL = re.compile(r"weight_ih|weight_hh|bias_ih|bias_hh")


def _groups(source: Any, prefix: str) -> list[list[Group]]:
    found = arrays(source, ".", prefix)
    if any(map(_OF_CELL.fullmatch, found.named)):
        return grouped(found, _place_of_cell, lambda k, d, short: short)
    return grouped(found, _place, _spell)


def _place_of_cell(name: str) -> tuple[int, int, str] | None:
    return (0, 0, name) if _OF_CELL.fullmatch(name) else None


def _place(name: str) -> tuple[int, int, str] | None:
    found = _NAME.fullmatch(name)
    return (int(found[2]), int(found[3] is not None), found[1]) if found else None


def _spell(k: int, d: int, short: str) -> str:
    return f"{short}_l{k}{'_reverse' if d else ''}"


def _ours(g: Group) -> dict:
    rows, n_out = g.shape("weight_hh")
    projected = "weight_hr" in g.named
    n_hidden = g.shape("weight_hr")[1] if projected else n_out
    among = {4: _LAYOUTS[PROJECTED_LSTM]} if projected else _BY_GATES
    layout = _layouts.chosen(g, "weight_hh", rows, n_hidden, among)
    sizes = Sizes(g.shape("weight_ih")[1], n_hidden, n_out)
    return _layouts.ours(layout, _layouts.checked(layout, g, sizes))


def _as_before(named: dict, g: Group) -> dict:
    biases = ("bias_ih", "bias_hh")
    once = [named[name] for name in biases]
    if not g.named.keys() & set(biases):
        no_bias(g.spell("bias_ih"), *once)
        return {name: a for name, a in named.items() if name not in biases}
    if not set(biases) <= g.named.keys():
        return named
    # Of three gates n is the last, with two biases of its own.
    columns = once[0].shape[-1]
    n_hidden = named["weight_hh"].shape[-1]
    summed = columns - (n_hidden if columns == 3 * n_hidden else 0)
    split = split_as(once, [loaded(g.named[name]) for name in biases], summed)
    return named | dict(zip(biases, split, strict=True))


def _check_same(whole: tuple) -> None:
    found = {
        (part.kind.name, part.sizes.n_hidden, part.sizes.n_out)
        for layer in whole
        for part in layer
    }
    kinds = {part.kind for layer in whole for part in layer}
    if len(found) > 1 or not kinds <= _LAYOUTS.keys():
        what = ", ".join(f"{name} of {n}" for name, n, _ in sorted(found))
        raise ValueError(
            "params: expected an LSTM, GRU (reset after) or simple recurrent network "
            f"with all layers alike, got {what}"
        )
