"""Parameters of `flax.linen`: `OptimizedLSTMCell`, `LSTMCell`, `GRUCell`, `SimpleCell`,
`MGUCell`, in `nn.RNN`, `nn.Bidirectional` and `nn.Sequential`.

    nn.RNN(cell)                           cell/…
    nn.Bidirectional(nn.RNN, nn.RNN)       forward_rnn/cell/…, backward_rnn/cell/…
    nn.Sequential([first, second])         layers_0/…, layers_1/…, each as above

A cell has one Dense for each gate, `i` for the inputs and `h` for the state: `ii`, `hi`,
…; ours are the gates side by side. Each bias of ours is one of theirs, so both ways are
exact. Modules that have their variables with them are read too, those of `flax.nnx` among
them.
"""

import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from bptt_jax.interop import _flax_modules, _layouts, weights
from bptt_jax.interop._arrays import on_host
from bptt_jax.interop._layouts import Layout
from bptt_jax.interop._named import Arrays, Group, arrays, grouped
from bptt_jax.interop.weights import ELMAN, GRU, LSTM, MGU, Network, Part, Sizes
from bptt_jax.types import PyTree

_LAYOUTS = _layouts.by_kind("flax.linen")


def load_params(
    source: Any,
    *,
    prefix: str = "",
    activation: Callable | None = None,
    residual: bool = False,
) -> Network:
    """A network from a tree of parameters, or a safetensors file with names joined by /.

    Args:
      source: variables (`{"params": …}`) or parameters of a cell or of the modules
        above; a path; such a module that has its variables with it: of `flax.linen`
        `module.bind(variables)`, or one of `flax.nnx`.
      prefix: what comes before in a larger model, "params/encoder/" say.
      activation: of `SimpleCell`; None: what a given module says, else tanh.
      residual: of `SimpleCell` where no module says it: whether h is added to the sum,
        which makes the weight W_h + 1.

    Returns:
      `(cells, params)`, NumPy arrays of their own; `weights.unroll(cells)` runs them, on
      inputs `[T, B, I]` whatever `time_major` says.

    Raises:
      ValueError: keys that are missing or unknown, wrong shapes or dtypes, a damaged
        file; the message names file and key. Of a module whatever makes its outputs
        other ones: functions of gates, `reset_gate=False`, `carry_init`, `reverse`,
        `merge_fn`, a dtype other than that of the parameters, modules between or of
        one's own.

    >>> import jax
    >>> from flax import linen as nn
    >>> from bptt_jax import cells, interop
    >>> rnn = nn.RNN(nn.GRUCell(4))
    >>> variables = rnn.init(jax.random.key(0), jax.numpy.ones((1, 2, 3)))
    >>> found, params = interop.flax.load_params(variables)
    >>> found == ((cells.gru(3, 4),),)
    True
    """
    if _flax_modules.room_of(source):
        if prefix:
            raise ValueError("prefix: goes with names; a part of a module is a module")
        params, said = _flax_modules.network_of(source)
        return weights.network(params, activation or said)
    found = arrays(source, "/", prefix)
    if all(name.startswith("params/") for name in found.named):
        found = arrays(source, "/", prefix + "params/")
    bare = all(name.count("/") == 1 for name in found.named)
    spell = _spell_bare if bare else _spell_in(found)
    groups = grouped(found, _place, spell, _both(found))
    params = [[_ours(g, residual) for g in layer] for layer in groups]
    return weights.network(params, activation or jnp.tanh)


def to_params(params: PyTree, *, cells: Any = None) -> dict:
    """The parameters of an `nn.RNN` for one layer, of an `nn.Sequential` of them for more.

    Args:
      params: of a `Network`, a stack of cells, or one cell: LSTM, GRU with the reset
        after the product, MGU, or Elman.
      cells: what they are, in the same places, where shapes do not say it: those of
        `cells.elman` are those of `cells.ctrnn`, too. A `Network` has them.

    Returns:
      A nested dict of NumPy arrays, with `nn.Bidirectional` for two directions. The
      parameters of a cell alone are `["cell"]` of it.

    >>> import jax
    >>> from bptt_jax import cells, interop
    >>> cell = cells.elman(3, 4)
    >>> params = cell.init(jax.random.key(0))
    >>> jax.tree.map(jax.numpy.shape, interop.flax.to_params(params, cells=cell))
    {'cell': {'h': {'kernel': (4, 4)}, 'i': {'bias': (4,), 'kernel': (3, 4)}}}
    """
    whole = weights.parts(params, cells)
    _layouts.check_kinds(whole, _LAYOUTS, "flax.linen")
    trees = [_of_layer([{"cell": _theirs(part)} for part in layer]) for layer in whole]
    if len(trees) == 1:
        return trees[0]
    return {f"layers_{k}": tree for k, tree in enumerate(trees)}


def _of_layer(trees: list[dict]) -> dict:
    if len(trees) == 1:
        return trees[0]
    return dict(forward_rnn=trees[0], backward_rnn=trees[1])


_NAME = re.compile(
    r"(?:layers_(\d{1,6})/)?(?:(forward|backward)_rnn/)?(?:cell/)?"
    r"([ih][a-z]?/(?:kernel|bias))"
)


def _place(name: str) -> tuple[int, int, str] | None:
    found = _NAME.fullmatch(name)
    return (
        (int(found[1] or 0), int(found[2] == "backward"), found[3]) if found else None
    )


def _both(found: Arrays) -> set[int]:
    """The layers of two directions, which are named in both."""
    parts = map(_NAME.fullmatch, found.named)
    return {int(part[1] or 0) for part in parts if part and part[2]}


def _spell_bare(k: int, d: int, short: str) -> str:
    del k, d
    return short


def _spell_in(found: Arrays) -> Callable:
    """How a missing name would be spelt among those that are there."""
    deep = any(name.startswith("layers_") for name in found.named)
    both = any("backward_rnn/" in name for name in found.named)

    def spell(k: int, d: int, short: str) -> str:
        layer = f"layers_{k}/" if deep else ""
        direction = f"{('forward', 'backward')[d]}_rnn/" if both else ""
        return f"{layer}{direction}cell/{short}"

    return spell


def _layout(g: Group) -> Layout:
    """By the gate that no other kind has."""
    there = {short.split("/")[0][1:] for short in g.named}
    telling = {"g": LSTM, "r": GRU, "f": MGU, "": ELMAN}
    for gate, kind in telling.items():
        if gate in there:
            return _LAYOUTS[kind]
    raise ValueError(f"{g.name(next(iter(g.named)))}: unknown key")


def _ours(g: Group, residual: bool) -> dict:
    layout = _layout(g)
    n_in, n_hidden = g.shape(layout.w_x[0])
    sizes = Sizes(n_in, n_hidden, n_hidden)
    params = _layouts.ours(layout, g.checked(_layouts.shapes(layout, sizes)))
    if residual:
        if layout.kind is not ELMAN:
            raise ValueError(
                f"residual: goes with SimpleCell, got the names of {layout.kind.name}"
            )
        params["w_h"] = params["w_h"] + np.eye(n_hidden, dtype=params["w_h"].dtype)
    return params


def _theirs(part: Part) -> dict[str, Any]:
    named = _layouts.of_part("flax.linen")(part)
    tree: dict[str, dict[str, Any]] = {}
    for name, a in on_host(named).items():
        dense, leaf = name.split("/")
        tree.setdefault(dense, {})[leaf] = a
    return tree
