"""What a layer or a model of Keras computes, as recurrent cells in the order they run.

A cell here is Keras's own object. Whatever would make the outputs other than those of a
network of such cells (`weights.unroll`, called without dropout and without a mask) is
refused by name: nothing is taken to be as usual.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

CELLS = ("LSTMCell", "GRUCell", "SimpleRNNCell")
RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN")
IDENTITIES = (
    "InputLayer", "Identity", "ActivityRegularization", "Dropout", "SpatialDropout1D",
    "GaussianDropout", "GaussianNoise", "AlphaDropout",
)  # fmt: skip
"""Layers that give what they are given, unless they train."""


class Obstacle(NamedTuple):
    """Stands between layers of which it is not known that one follows the other."""

    name: str
    why: str


def is_object(source: Any) -> bool:
    return isinstance(getattr(source, "weights", None), list)


def cells_of(source: Any, prefix: str) -> list[list[Any]]:
    """For each layer the cell of each direction.

    Args:
      source: a cell, a layer, or a model.
      prefix: of the paths of the weights of the layers that are meant.

    Raises:
      ValueError: an option, a layer or a cell that a network of ours does not have, or no
        weights as yet.
    """
    found = [layer for leaf in _chosen(source, prefix) for layer in _layers_of(leaf)]
    if not found:
        raise ValueError(f"{source.name}: no recurrent layer")
    return found


def check_no_state(source: Any, prefix: str) -> None:
    """Refuses a stateful layer that does not begin with zeros."""
    for leaf in _chosen(source, prefix):
        parts = [getattr(leaf, f"{d}_layer", None) for d in ("forward", "backward")]
        for layer in (leaf, *parts):
            states = _flat(getattr(layer, "states", None))
            if layer is not None and any(np.any(np.asarray(s)) for s in states):
                raise ValueError(
                    f"{layer.name}: is stateful and has a state, which is no weight; "
                    "expected one after reset_state() (here the state is the carry)"
                )


def class_name(thing: Any) -> str:
    """The name of a class of Keras itself; of another class it has a dot in it."""
    kind = type(thing)
    own = kind.__module__.split(".")[0] == "keras"
    return kind.__name__ if own else f"{kind.__module__}.{kind.__name__}"


def variables(cell: Any) -> dict[str, Any]:
    """Variables of a cell by their short names."""
    named = {n: getattr(cell, n, None) for n in ("kernel", "recurrent_kernel", "bias")}
    if named["kernel"] is None:
        raise ValueError(
            f"{cell.name}: has no weights yet; build it, or call it once on an input"
        )
    if not hasattr(named["kernel"], "path"):
        raise ValueError(f"{cell.name}: expected a layer of Keras 3, with paths")
    return {name: v for name, v in named.items() if v is not None}


def activation_name(f: Any) -> str:
    """The name of a function of Keras itself; of another function it has a dot in it."""
    name = getattr(f, "__name__", type(f).__name__)
    module = getattr(f, "__module__", None) or "?"
    own = module.split(".")[0] == "keras" and not hasattr(f, "get_config")
    return name if own else f"{module}.{name}"


def _leaves(source: Any) -> Iterator[Any]:
    """Layers in the order they run, with obstacles where that is not known."""
    kind = class_name(source)
    if not hasattr(source, "layers"):
        yield source
        return
    why = None
    if kind == "Functional":
        why = _no_chain(source)
    elif kind != "Sequential":
        why = f"what a {kind} does with its layers is not known"
    if why:
        yield Obstacle(source.name, why)
    for layer in source.layers:
        yield from _leaves(layer)
        if why:
            yield Obstacle(source.name, why)


def _chosen(source: Any, prefix: str) -> list[Any]:
    """The leaves from the first to the last of those whose weights have the prefix."""
    leaves, there = list(_leaves(source)), []
    if not prefix:
        return leaves
    for k, leaf in enumerate(leaves):
        paths = [v.path for v in getattr(leaf, "weights", ())]
        begin = [path.startswith(prefix) for path in paths]
        if any(begin):
            there.append(k)
        if any(begin) and not all(begin):
            raise ValueError(
                f"prefix: {prefix!r} ends within {leaf.name}; expected one of whole "
                "layers (a part can be given as the source, its forward_layer say)"
            )
    if not there:
        paths = [v.path for leaf in leaves for v in getattr(leaf, "weights", ())]
        raise ValueError(
            f"weights: no key begins with {prefix!r}; it has {', '.join(paths[:8])}"
        )
    return leaves[there[0] : there[-1] + 1]


def _no_chain(model: Any) -> str | None:
    """Why a functional model is not one layer after another; None: it is."""
    try:
        config, before = model.get_config(), None
    except (NotImplementedError, TypeError, ValueError):
        return "one of its layers cannot be described"
    layers = {layer.name for layer in model.layers}
    for entry in config["layers"]:
        name, nodes = entry["name"], entry["inbound_nodes"]
        if name not in layers:
            return f"{name} ({entry['class_name']}) is no layer"
        if not nodes and before is None:
            before = name
            continue
        if len(nodes) != 1:
            return f"{name} is called {len(nodes)} times"
        args, kwargs = nodes[0]["args"], nodes[0]["kwargs"]
        if [*_tensors(args)] != [[before, 0, 0]]:
            return f"{name} does not take what {before} gives, and that alone"
        if [*_tensors(kwargs)]:
            return f"{name} is called with {_named_tensors(kwargs)}"
        if kwargs.get("training"):
            return f"{name} is called with training=True"
        before = name
    ends = config["output_layers"]
    ends = ends if isinstance(ends[0], list) else [ends]
    if any(name != before for name, *_ in ends) or ends[0] != [before, 0, 0]:
        return f"its outputs are not those of its last layer, {before}"
    return None


def _tensors(tree: Any) -> Iterator[list]:
    """Where the symbolic tensors in a call are from: [layer, call, output]."""
    if isinstance(tree, dict) and tree.get("class_name") == "__keras_tensor__":
        yield list(tree["config"]["keras_history"])
    elif isinstance(tree, dict):
        for inner in tree.values():
            yield from _tensors(inner)
    elif isinstance(tree, list | tuple):
        for inner in tree:
            yield from _tensors(inner)


def _named_tensors(kwargs: dict) -> str:
    return ", ".join(f"{name}=" for name, a in kwargs.items() if [*_tensors(a)])


def _layers_of(leaf: Any) -> list[list[Any]]:
    """The cells of one leaf of a model, layers of directions."""
    if isinstance(leaf, Obstacle):
        raise ValueError(
            f"{leaf.name}: expected layers one after another: {leaf.why}; of such a "
            "model one layer at a time is read"
        )
    kind = class_name(leaf)
    if kind in IDENTITIES:
        return []
    if kind in (*CELLS, "StackedRNNCells"):
        return [[cell] for cell in _stacked(leaf)]
    if kind == "Bidirectional":
        return [_both(leaf)]
    if kind in RECURRENT:
        if leaf.zero_output_for_mask:
            raise ValueError(
                f"{leaf.name}: expected zero_output_for_mask=False, got True: outputs of "
                "masked steps are here those before them"
            )
        return [[cell] for cell in _cells(leaf, backwards=False)]
    raise ValueError(
        f"{leaf.name}: expected one of {', '.join(RECURRENT)}, Bidirectional and "
        f"dropout, got {kind}; of a larger model choose layers by their prefix"
    )


def _both(layer: Any) -> list[Any]:
    """The two cells of a `Bidirectional`."""
    if layer.merge_mode != "concat":
        raise ValueError(
            f"{layer.name}: expected merge_mode='concat', got {layer.merge_mode!r}"
        )
    found = []
    for inner, backwards in (
        (layer.forward_layer, False),
        (layer.backward_layer, True),
    ):
        kind = class_name(inner)
        if kind not in RECURRENT:
            raise ValueError(
                f"{layer.name}: expected two of {', '.join(RECURRENT)}, got {kind}"
            )
        cells = _cells(inner, backwards)
        if len(cells) != 1:
            raise ValueError(
                f"{layer.name}: each direction runs through {len(cells)} cells before "
                "they are joined; expected one cell a direction"
            )
        _check_dtype(layer, cells[0])
        found += cells
    return found


def _cells(layer: Any, backwards: bool) -> list[Any]:
    """The cells of a layer of one direction."""
    if layer.go_backwards != backwards:
        raise ValueError(
            f"{layer.name}: expected go_backwards={backwards}, got {layer.go_backwards}"
        )
    cells = _stacked(layer.cell)
    for cell in cells:
        _check_dtype(layer, cell)
    return cells


def _stacked(cell: Any) -> list[Any]:
    """The cells that run one after another in a step."""
    kind = class_name(cell)
    if kind == "StackedRNNCells":
        return [c for inner in cell.cells for c in _stacked(inner)]
    if kind not in CELLS:
        name = getattr(cell, "name", kind)
        raise ValueError(f"{name}: expected one of {', '.join(CELLS)}, got {kind}")
    _check_dtype(cell, cell)
    if kind != "SimpleRNNCell":
        gates = [*map(activation_name, (cell.activation, cell.recurrent_activation))]
        if gates != ["tanh", "sigmoid"]:
            raise ValueError(
                f"{cell.name}: expected the activations tanh and sigmoid, got "
                f"{' and '.join(gates)}"
            )
    return [cell]


def _flat(states: Any) -> Iterator[Any]:
    """The state of a stateful layer, which is None before the first call."""
    if isinstance(states, list | tuple):
        for state in states:
            yield from _flat(state)
    elif states is not None:
        yield states


def _check_dtype(layer: Any, cell: Any) -> None:
    """Weights are computed with in their own dtype."""
    if layer.compute_dtype != cell.variable_dtype:
        raise ValueError(
            f"{layer.name}: expected a computation in {cell.variable_dtype}, the dtype of "
            f"its weights, got {layer.compute_dtype}"
        )
