"""`equinox.nn.LSTMCell` and `equinox.nn.GRUCell`, one or in (nested) lists.

    weight_ih [G·H, I], weight_hh [G·H, H], bias [G·H], and of a GRU bias_n [H]

with gates in the order i, f, g, o and r, z, n: the transposes of ours. A list of cells is
a network, its arrays `0.weight_ih`, `1.weight_ih`, …; a list of pairs has two directions,
`0.0.weight_ih` and `0.1.weight_ih`. Both ways are exact.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bptt_jax.interop import _layouts, weights
from bptt_jax.interop._named import Group, arrays, grouped, is_path, written
from bptt_jax.interop.weights import Network, Part, Sizes
from bptt_jax.types import PyTree

CELLS = tuple(a.name for a in _layouts.LAYOUTS["equinox"])
LEAVES = ("weight_ih", "weight_hh", "bias", "bias_n")
_theirs = _layouts.of_part("equinox")
_LAYOUTS = _layouts.by_kind("equinox")
_BY_GATES = _layouts.by_gates("equinox")


def load_cells(source: Any, *, prefix: str = "") -> Network:
    """A network from cells of Equinox, their arrays by name, or a safetensors file.

    Args:
      source: a cell, a list of cells (layers), or a list of pairs (two directions); a
        mapping of names to arrays as above; a path.
      prefix: of names in a mapping or file.

    Returns:
      `(cells, params)`, NumPy arrays of their own; `weights.unroll(cells)` runs them.

    Raises:
      ValueError: keys that are missing or unknown, wrong shapes or dtypes, a damaged
        file; the message names file and key. An object that is not Equinox's own cell.

    >>> import numpy as np
    >>> from bptt_jax import cells, interop
    >>> theirs = {"weight_ih": np.ones((16, 3)), "weight_hh": np.ones((16, 4)),
    ...           "bias": np.ones(16)}
    >>> found, params = interop.equinox.load_cells(theirs)
    >>> found == ((cells.lstm(3, 4),),)
    True
    """
    if isinstance(source, list | tuple) or not (is_path(source) or _is_named(source)):
        source = _arrays_of(source, "")
    found = arrays(source, ".", prefix)
    depth = max(name.count(".") for name in found.named)
    groups = grouped(found, _place, _speller(depth))
    return weights.network([map(_ours, layer) for layer in groups])


def to_arrays(params: PyTree, *, cells: Any = None) -> dict[str, Any]:
    """The arrays of Equinox's cells by name, NumPy.

    Args:
      params: of a `Network`, a stack of cells, or one cell: LSTM, or GRU with the reset
        after the product.
      cells: what they are, in the same places, where shapes do not say it. A `Network`
        has them.

    >>> import jax
    >>> from bptt_jax import cells, interop
    >>> params = cells.gru(3, 4).init(jax.random.key(0))
    >>> sorted(interop.equinox.to_arrays(params))
    ['bias', 'bias_n', 'weight_hh', 'weight_ih']
    """
    whole = weights.parts(params, cells)
    _layouts.check_kinds(whole, _LAYOUTS, "Equinox")
    both = weights.directions(whole, "a list of Equinox's cells") == 2
    depth = 2 if both else 1 if len(whole) > 1 else 0
    return written(whole, _theirs, _speller(depth))


def _speller(depth: int) -> Callable:
    def spell(k, d, short):
        return ".".join([*map(str, (k, d)[:depth]), short])

    return spell


def to_cells(params: PyTree, *, cells: Any = None) -> Any:
    """Equinox's cells: one, a list of layers, or a list of pairs.

    Args: as of `to_arrays`. Needs Equinox.
    """
    whole = weights.parts(params, cells)
    _layouts.check_kinds(whole, _LAYOUTS, "Equinox")
    made = [[*map(_cell, layer)] for layer in whole]
    if len(whole[0]) == 2:
        return made
    each = [cell for (cell,) in made]
    return each[0] if len(each) == 1 else each


def _is_named(source: Any) -> bool:
    return isinstance(source, Mapping) or hasattr(source, "state_dict")


def _arrays_of(source: Any, before: str) -> dict[str, Any]:
    if isinstance(source, list | tuple):
        parts = [_arrays_of(s, f"{before}{k}.") for k, s in enumerate(source)]
        return {name: a for part in parts for name, a in part.items()}
    kind = type(source)
    if kind.__name__ not in CELLS or not kind.__module__.startswith("equinox.nn."):
        raise ValueError(
            f"source: expected {' or '.join(CELLS)} of Equinox, lists of them, their "
            f"arrays by name or a path, got {kind.__module__}.{kind.__name__}"
        )
    leaves = {leaf: getattr(source, leaf, None) for leaf in LEAVES}
    return {before + leaf: a for leaf, a in leaves.items() if a is not None}


_NAME = re.compile(rf"(?:(\d{{1,6}})\.)?(?:([01])\.)?({'|'.join(LEAVES)})")


def _place(name: str) -> tuple[int, int, str] | None:
    found = _NAME.fullmatch(name)
    return (int(found[1] or 0), int(found[2] or 0), found[3]) if found else None


def _ours(g: Group) -> dict:
    rows, n_hidden = g.shape("weight_hh")
    layout = _layouts.chosen(g, "weight_hh", rows, n_hidden, _BY_GATES)
    sizes = Sizes(g.shape("weight_ih")[1], n_hidden, n_hidden)
    return _layouts.ours(layout, _layouts.checked(layout, g, sizes))


def _cell(part: Part) -> Any:
    eqx: Any = importlib.import_module("equinox")

    leaves = {leaf: jnp.array(a) for leaf, a in _theirs(part).items()}
    make = getattr(eqx.nn, _LAYOUTS[part.kind].name)
    cell = make(part.sizes.n_in, part.sizes.n_hidden, key=jax.random.key(0))
    return eqx.tree_at(
        lambda c: [getattr(c, leaf) for leaf in leaves], cell, list(leaves.values())
    )
