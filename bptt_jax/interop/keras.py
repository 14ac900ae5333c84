"""Weights of `keras.layers.LSTM`, `GRU` (either place of the reset) and `SimpleRNN`.

    lstm/lstm_cell/kernel             [I, G·H]    w_x     gates i, f, c, o or z, r, h
    lstm/lstm_cell/recurrent_kernel   [H, G·H]    w_h
    lstm/lstm_cell/bias               [G·H]       b

A GRU with `reset_after=True` has bias `[2, 3H]`, of the inputs and of the state: what is
only ever added becomes one, and the second of h is our `b_n`. In `Bidirectional` the
names are `bidirectional/forward_lstm/lstm_cell/…` and `…/backward_lstm/…`; further layers
are `lstm_1`, `lstm_2`, …
"""

import collections
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bptt_jax.interop import _keras, _layouts, weights
from bptt_jax.interop._arrays import namespace, no_bias, split_as
from bptt_jax.interop._layouts import Layout
from bptt_jax.interop._named import (
    Group,
    arrays,
    as_array,
    grouped,
    in_order,
    loaded,
    written,
)
from bptt_jax.interop.weights import GRU, GRU_RESET_BEFORE, Network, Sizes
from bptt_jax.types import PyTree

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}
_theirs = _layouts.of_part("keras")
_LAYOUTS = _layouts.by_kind("keras")
_BY_GATES = _layouts.by_gates("keras")


def load_weights(
    source: Any,
    *,
    prefix: str = "",
    activation: Callable | None = None,
    reset_after: bool = True,
) -> Network:
    """A network from a layer or model, its weights by path, or a safetensors file.

    Args:
      source: a cell, a layer (also `Bidirectional`, and `RNN` of one or of several
        cells), or a model of one layer after another; a mapping of `variable.path` to
        arrays; a path.
      prefix: what comes before in a larger model, "sequential/lstm" say; the layers of a
        model that have it must follow one another.
      activation: of `SimpleRNN`; None: what a given layer says (tanh, relu or sigmoid),
        else tanh.
      reset_after: of a GRU without biases in a mapping or file, the only one that does
        not show it.

    Returns:
      `(cells, params)`, NumPy arrays of their own; `weights.unroll(cells)` runs them as
      the layer is when it is called: without dropout, from a state of zeros, and on
      `[T, B, I]`. Outputs are those of all steps, whatever `return_sequences` says; the
      one output of `Bidirectional` without it is the two states of the carry. Layers of a
      mapping or file come in the order of the numbers in their names.

    Raises:
      ValueError: keys that are missing or unknown, wrong shapes or dtypes, a damaged
        file; the message names file and key. Of a layer or model whatever makes its
        outputs other ones: activations, `go_backwards`, `merge_mode`,
        `zero_output_for_mask`, mixed precision, a state that is not zero, cells and
        layers that are not Keras's own, layers between, a graph that is no chain.

    >>> import numpy as np
    >>> from bptt_jax import cells, interop
    >>> theirs = {"gru/gru_cell/kernel": np.ones((3, 12)),
    ...           "gru/gru_cell/recurrent_kernel": np.ones((4, 12)),
    ...           "gru/gru_cell/bias": np.ones((2, 12))}
    >>> found, params = interop.keras.load_weights(theirs)
    >>> found == ((cells.gru(3, 4),),)
    True
    """
    if not _keras.is_object(source):
        groups = _groups(source, prefix)
        params = [[_ours(g, reset_after) for g in layer] for layer in groups]
        return weights.network(params, activation or jnp.tanh)
    _keras.check_no_state(source, prefix)
    cells = _keras.cells_of(source, prefix)
    said = activation or [[*map(_activation, layer)] for layer in cells]
    after = [[getattr(cell, "reset_after", True) for cell in of] for of in cells]
    each = zip(_of_object(cells), after, strict=True)
    return weights.network([[*map(_ours, *of)] for of in each], said)


def to_weights(
    params: PyTree, *, like: Any = None, cells: Any = None
) -> dict[str, Any]:
    """The weights of Keras layers by path, NumPy arrays, in the order of `layer.weights`.

    Args:
      params: of a `Network`, a stack of cells, or one cell: LSTM, GRU, or Elman.
      like: what the network was loaded from (as `source`): its paths are kept, and how
        a sum of two biases was split wherever it has not changed. Without it the paths
        are Keras's own for first layers, and the second bias of z and r is zero.
      cells: what they are, in the same places, where shapes do not say it: those of
        `cells.elman` are those of `cells.ctrnn`, too. A `Network` has them.

    Returns:
      `layer.set_weights(list(….values()))` takes it.

    >>> import jax
    >>> from bptt_jax import cells, interop
    >>> params = cells.lstm(3, 4).init(jax.random.key(0))
    >>> list(interop.keras.to_weights(params))[0]
    'lstm/lstm_cell/kernel'
    """
    whole = weights.parts(params, cells, loaded=like is not None)
    _layouts.check_kinds(whole, _LAYOUTS, "Keras")
    groups = None if like is None else _groups(like, "")
    return written(whole, _theirs, _speller(whole), groups, _as_before)


def _speller(whole: tuple) -> Callable:
    """Keras numbers the layers of a kind."""
    folders, count = [], collections.Counter()
    for layer in whole:
        name, both = _LAYOUTS[layer[0].kind].folder, len(layer) == 2
        outer = "bidirectional" if both else name
        end = f"_{count[outer]}" if count[outer] else ""
        count[outer] += 1
        inner = [f"/{d}_{name}{end}" for d in ("forward", "backward")] if both else [""]
        folders.append([f"{outer}{end}{direction}/{name}_cell" for direction in inner])

    def spell(k, d, short):
        return f"{folders[k][d]}/{short}"

    return spell


def _activation(cell: Any) -> Callable:
    """Of a simple cell, what it says; of another the usual, which no cell reads."""
    if _keras.class_name(cell) != "SimpleRNNCell":
        return jnp.tanh
    name = _keras.activation_name(cell.activation)
    if name not in ACTIVATIONS:
        raise ValueError(
            f"{cell.name}: activation: expected one of {', '.join(ACTIVATIONS)}, got "
            f"{name} (activation= can give another)"
        )
    return ACTIVATIONS[name]


def _of_object(cells: list[list[Any]]) -> list[list[Group]]:
    """The arrays of cells of Keras, by their paths."""

    def group(cell):
        found = _keras.variables(cell)
        full = {short: v.path for short, v in found.items()}
        folder = full["kernel"].rsplit("/", 1)[0]
        named = {short: as_array(v.numpy()) for short, v in found.items()}
        return Group("weights", named, full, lambda short: f"{folder}/{short}")

    return [[group(cell) for cell in layer] for layer in cells]


def _groups(source: Any, prefix: str) -> list[list[Group]]:
    if _keras.is_object(source):
        return _of_object(_keras.cells_of(source, prefix))
    found = arrays(source, "/", prefix)
    parts = {name: _parts(name) for name in found.named}
    at = in_order(found.origin, [part[0] for part in parts.values() if part])
    folder = {(at[p[0]], p[1]): n.rsplit("/", 1)[0] for n, p in parts.items() if p}

    def place(name):
        part = parts[name]
        return (at[part[0]], *part[1:]) if part else None

    def spell(k, d, short):
        return f"{folder.get((k, d), ('forward', 'backward')[d])}/{short}"

    backward = {at[part[0]] for part in parts.values() if part and part[1]}
    forward = {at[p[0]] for n, p in parts.items() if p and _FORWARD.search(n)}
    return grouped(found, place, spell, backward | forward if backward else set())


_FORWARD = re.compile(r"(?:^|/)forward_[^/]*/[^/]*/[^/]*$")
_OF_CELL = re.compile(r"(?:^|/)(lstm|gru|simple_rnn)_cell(?:_\d+)?/[^/]*$")
_CELL = r"(?:lstm|gru|simple_rnn)_cell(?:_\d+)?"
_NAME = re.compile(
    r"(?:(?P<layer>.*?)/)??(?:(?P<direction>forward|backward)_[^/]*/)?"
    rf"{_CELL}/(?P<short>kernel|recurrent_kernel|bias)"
)
_STACKED = re.compile(
    rf"(?P<layer>(?:.*/)?stacked_rnn_cells(?:_\d+)?/{_CELL})/"
    r"(?P<short>kernel|recurrent_kernel|bias)"
)


def _parts(name: str) -> tuple[str, int, str] | None:
    """Layer, direction and short name; of stacked cells each is a layer."""
    if found := _STACKED.fullmatch(name):
        return found["layer"], 0, found["short"]
    if found := _NAME.fullmatch(name):
        direction = int(found["direction"] == "backward")
        return found["layer"] or "", direction, found["short"]
    return None


def _ours(g: Group, reset_after: bool) -> dict:
    n_hidden, columns = g.shape("recurrent_kernel")
    among = _gates_of(g)
    layout = _layouts.chosen(g, "recurrent_kernel", columns, n_hidden, among)
    if "bias" in g.named:
        reset_after = len(g.named["bias"].shape) == 2
    if layout.kind is GRU and not reset_after:
        layout = _LAYOUTS[GRU_RESET_BEFORE]
    sizes = Sizes(g.shape("kernel")[0], n_hidden, n_hidden)
    return _layouts.ours(layout, _layouts.checked(layout, g, sizes))


def _gates_of(g: Group) -> dict[int, Layout]:
    """The kinds that it can be: the one that the name of the cell says, if it is one."""
    found = _OF_CELL.search(g.full["recurrent_kernel"])
    if not found:
        return _BY_GATES
    return {n: a for n, a in _BY_GATES.items() if a.folder == found[1]}


def _as_before(named: dict, g: Group) -> dict:
    if "bias" not in g.named:
        no_bias(g.spell("bias"), named["bias"])
        return {name: a for name, a in named.items() if name != "bias"}
    if named["bias"].ndim == 1:
        return named
    once, before = [*named["bias"]], [*loaded(g.named["bias"])]
    split = split_as(once, before, 2 * (len(once[0]) // 3))
    return named | dict(bias=namespace(once[0]).stack(split))
