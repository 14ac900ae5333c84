"""Parameters of `haiku.LSTM`, `haiku.GRU` and `haiku.VanillaRNN`, one or in a row.

    lstm/linear            w [I + H, 4H], b [4H]    gates i, g, f, o; the cell adds 1 to f's
    gru                    w_i [I, 3H], w_h [H, 3H], b [3H]    gates z, r, a
    vanilla_rnn/linear     w [I, H], b [H]          of the inputs; the cell is a relu one
    vanilla_rnn/linear_1   w [H, H], b [H]          of the state

and `lstm_1`, `lstm_2`, … for the layers above. Haiku's GRU resets before the product and
its z takes the candidate where ours keeps the state, so z changes sign. The 1 that its
LSTM adds is in our bias: a number smaller than 1 loses digits when 1 is added, so our
biases of f come back but for the rounding of that, and Haiku's exactly with `like=`.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax.interop import _layouts, weights
from bptt_jax.interop._arrays import join, namespace, split_as, split_gates
from bptt_jax.interop._named import (
    Arrays,
    Group,
    arrays,
    grouped,
    in_order,
    loaded,
    written,
)
from bptt_jax.interop.weights import (
    ELMAN,
    GRU_RESET_BEFORE,
    LSTM,
    Kind,
    Network,
    Sizes,
)
from bptt_jax.types import PyTree

_theirs = _layouts.of_part("haiku")
_LAYOUTS = _layouts.by_kind("haiku")
_SEEN_AT = (-30.0, -1.5, -0.1, 0.0, 0.1, 1.5, 30.0)
_SHORT = ("linear/w", "linear/b", "linear_1/w", "linear_1/b", "w_i", "w_h", "b")


def load_params(source: Any, *, prefix: str = "") -> Network:
    """A network from Haiku's parameters, or a safetensors file with names joined by /.

    Args:
      source: `{"lstm/linear": {"w": …, "b": …}}` as `haiku.transform` gives it; a path.
      prefix: what comes before in a larger model, "net/~/" say.

    Returns:
      `(cells, params)`, NumPy arrays of their own; `weights.unroll(cells)` runs them.
      Layers come in the order of the numbers in their names.

    Raises:
      ValueError: keys that are missing or unknown, wrong shapes or dtypes, a damaged
        file; the message names file and key.

    >>> import numpy as np
    >>> from bptt_jax import cells, interop
    >>> theirs = {"gru": {"w_i": np.ones((3, 12)), "w_h": np.ones((4, 12)),
    ...                   "b": np.ones(12)}}
    >>> found, params = interop.haiku.load_params(theirs)
    >>> found == ((cells.gru(3, 4, reset_after=False),),)
    True
    """
    groups = _groups(arrays(source, "/", prefix))
    params = [[_ours(g) for g in layer] for layer in groups]
    _refuse_skips(params)
    return weights.network(params, jax.nn.relu)


def _refuse_skips(params: list) -> None:
    """Layers that see the first inputs beside the outputs of the layer below."""
    sizes = [weights.kind_of(p, loaded=True)[1] for (p,) in params]
    for k, (below, here) in enumerate(itertools.pairwise(sizes), 1):
        if here.n_in == sizes[0].n_in + below.n_out:
            raise ValueError(
                f"layer {k}: expected {below.n_out} inputs, got {here.n_in}, as of "
                "deep_rnn_with_skip_connections, which is no network of layers alone"
            )


def to_params(
    params: PyTree, *, like: Any = None, cells: Any = None
) -> dict[str, dict[str, Any]]:
    """Haiku's parameters of a network of one direction, NumPy arrays.

    Args:
      params: of a `Network`, a stack of cells, or one cell: LSTM, GRU with the reset
        before the product, or Elman with relu, the one activation of Haiku's `VanillaRNN`.
      like: what the network was loaded from (as `source`): its names are kept, and its
        biases wherever they have not changed.
      cells: what they are, in the same places, where shapes do not say it: those of
        `cells.elman` are those of `cells.ctrnn`, too. A `Network` has them. Parameters
        of none that is known, which `like` allows, are taken for those of a relu one.

    Raises:
      ValueError: a network that Haiku does not have, of another activation too; shapes
        that do not say which it is; two directions.

    >>> import jax
    >>> from bptt_jax import cells, interop
    >>> params = cells.lstm(3, 4).init(jax.random.key(0))
    >>> jax.tree.map(jax.numpy.shape, interop.haiku.to_params(params))
    {'lstm/linear': {'b': (16,), 'w': (7, 16)}}
    """
    whole = weights.parts(params, cells, loaded=like is not None)
    if any(len(layer) == 2 for layer in whole):
        raise ValueError("params: Haiku's cells have one direction, got two")
    _layouts.check_kinds(whole, _LAYOUTS, "Haiku")
    for (part,) in whole:
        _refuse_another_activation(part)
    groups = None if like is None else _groups(arrays(like, "/"))
    named = written(whole, _theirs, _speller(whole), groups, _as_before)
    tree: dict[str, dict[str, Any]] = {}
    for name, a in named.items():
        module, leaf = name.rsplit("/", 1)
        tree.setdefault(module, {})[leaf] = a
    return tree


def _refuse_another_activation(part: weights.Part) -> None:
    """Of an Elman cell that is known; seen by what it gives, whatever made it."""
    if part.kind is not ELMAN or part.cell is None:
        return
    n_in, n = part.sizes.n_in, part.sizes.n_hidden
    z = np.outer(_SEEN_AT, np.ones(n)).astype(np.float32)
    weights_of = dict(w_x=np.zeros((n_in, n)), w_h=np.eye(n), b=np.zeros(n))
    with jax.ensure_compile_time_eval():
        params = {k: jnp.asarray(a, jnp.float32) for k, a in weights_of.items()}
        x = jnp.zeros((len(_SEEN_AT), n_in), jnp.float32)
        found = part.cell.step(params, jnp.asarray(z), x)[1]
        found = np.asarray(found).astype(np.float32)
    if np.allclose(found, np.maximum(z, 0), rtol=0.01, atol=0):
        return
    raise ValueError(
        "cells: expected the activation relu, which haiku.VanillaRNN has and no other, "
        f"got {part.cell!r}"
    )


def _speller(whole: tuple) -> Callable:
    """Haiku numbers the modules of a kind."""
    modules = []
    for (part,) in whole:
        name = _LAYOUTS[part.kind].folder
        alike = sum(m.startswith(name) for m in modules)
        modules.append(f"{name}_{alike}" if alike else name)

    def spell(k, d, short):
        del d
        return f"{modules[k]}/{short}"

    return spell


def _parts(name: str) -> tuple[str, str] | None:
    """Module and short name."""
    for short in _SHORT:
        if name == short or name.endswith("/" + short):
            return name[: -len(short)].rstrip("/"), short
    return None


def _groups(found: Arrays) -> list[list[Group]]:
    parts = {name: _parts(name) for name in found.named}
    modules = [part[0] for part in parts.values() if part]
    at = in_order(found.origin, modules)
    module = {k: name for name, k in at.items()}

    def place(name):
        part = parts[name]
        return (at[part[0]], 0, part[1]) if part else None

    def spell(k, d, short):
        del d
        return f"{module[k]}/{short}".lstrip("/")

    return grouped(found, place, spell)


def _ours(g: Group) -> dict:
    if "linear_1/w" in g.named:
        return _vanilla(g)
    return _gru(g) if "w_h" in g.named or "w_i" in g.named else _lstm(g)


def _lstm(g: Group) -> dict:
    rows, columns = g.shape("linear/w")
    n_hidden = columns // 4
    if columns % 4 or rows <= n_hidden:
        raise ValueError(
            f"{g.name('linear/w')}: expected [I + H, 4H], got [{rows}, {columns}]"
        )
    return _of_kind(LSTM, g, rows - n_hidden, n_hidden)


def _gru(g: Group) -> dict:
    n_hidden, columns = g.shape("w_h")
    _layouts.chosen(g, "w_h", columns, n_hidden, {3: _LAYOUTS[GRU_RESET_BEFORE]})
    return _of_kind(GRU_RESET_BEFORE, g, g.shape("w_i")[0], n_hidden)


def _vanilla(g: Group) -> dict:
    return _of_kind(ELMAN, g, *g.shape("linear/w"))


def _of_kind(kind: Kind, g: Group, n_in: int, n_hidden: int) -> dict:
    layout = _LAYOUTS[kind]
    if len(layout.biases) == 2 and "linear_1/b" not in g.named:
        layout = layout._replace(biases=layout.biases[:1])
    sizes = Sizes(n_in, n_hidden, n_hidden)
    return _layouts.ours(layout, g.checked(_layouts.shapes(layout, sizes)))


def _as_before(named: dict, g: Group) -> dict:
    """Biases as they were, where nothing but rounding or a sum makes a difference."""
    old = {name: loaded(a) for name, a in g.named.items()}
    pair = ("linear/b", "linear_1/b")
    if "linear_1/w" in named and "linear_1/b" not in old:  # of one bias it is -0
        return {name: a for name, a in named.items() if name != "linear_1/b"}
    if "linear_1/w" in named and set(pair) <= old.keys():
        once, before = ([of[name] for name in pair] for of in (named, old))
        split = split_as(once, before, len(once[0]))
        return named | dict(zip(pair, split, strict=True))
    if "linear/b" in named and "linear/b" in old and "linear_1/w" not in named:
        i, candidate, f, o = split_gates(named["linear/b"], 4)
        f_before = split_gates(old["linear/b"], 4)[2]
        f = namespace(f).where(f_before + 1 == f + 1, f_before, f)
        return named | {"linear/b": join([i, candidate, f, o])}
    return named
