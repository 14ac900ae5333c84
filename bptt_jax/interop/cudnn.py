"""The flat vector of `jax.experimental.rnn`: cuDNN's LSTM, any depth, both directions.

With pseudo-layers forward 0, reverse 0, forward 1, … the vector is

    weight_ih, weight_hh of each pseudo-layer    [4H, I], [4H, H], row by row
    bias_ih, bias_hh of each pseudo-layer        [4H], [4H]

with the names of `interop.torch` and gates in the order i, f, g, o.
"""

import math
from typing import Any

from bptt_jax._factory import positive
from bptt_jax.interop import _layouts, torch, weights
from bptt_jax.interop._arrays import join
from bptt_jax.interop._named import arrays, as_array, is_path, loaded
from bptt_jax.interop.weights import LSTM, Network
from bptt_jax.types import PyTree

KEY = "weights"
"""The name of the vector in a file, whose metadata are the sizes."""


def load_flat(
    source: Any,
    *,
    input_size: int | None = None,
    hidden_size: int | None = None,
    num_layers: int | None = None,
    bidirectional: bool | None = None,
) -> Network:
    """A network from the flat vector, with the arguments of `jax.experimental.rnn.lstm`.

    Args:
      source: the vector, or a safetensors file with it under the key "weights"; such a
        file's metadata have what is not given of
      input_size, hidden_size, num_layers, bidirectional: the sizes; num_layers is 1 and
        bidirectional False where nothing says otherwise.

    Raises:
      ValueError: sizes that are missing, or do not go with the length of the vector.

    >>> import jax
    >>> from jax.experimental import rnn
    >>> from bptt_jax import cells, interop
    >>> flat = rnn.init_lstm_weight(jax.random.key(0), 3, 4, 1, False)
    >>> found, params = interop.cudnn.load_flat(flat, input_size=3, hidden_size=4)
    >>> found == ((cells.lstm(3, 4),),)
    True
    """
    given = dict(
        input_size=input_size, hidden_size=hidden_size, num_layers=num_layers,
        bidirectional=bidirectional,
    )  # fmt: skip
    where, vector, about = _vector(source)
    sizes = _sizes(where, {k: v for k, v in given.items() if v is not None}, about)
    return torch.load_state_dict(_unpacked(where, vector, *sizes))


def to_flat(params: PyTree, *, like: Any = None, cells: Any = None) -> Any:
    """The flat vector of an LSTM network; its second biases are zero.

    Args:
      params: of a `Network`, a stack of cells, or one cell: LSTMs of one size.
      like: the vector that was loaded: how it splits biases is kept (see
        `torch.to_state_dict`).
      cells: what they are, in the same places, where shapes do not say it. A `Network`
        has them.

    >>> import jax
    >>> from bptt_jax import cells, interop
    >>> interop.cudnn.to_flat(cells.lstm(3, 4).init(jax.random.key(0))).shape
    (144,)
    """
    sizes = sizes_of(params, cells=cells)
    if like is not None:
        like = _unpacked("like", _vector(like)[1], *sizes.values())
    state = torch.to_state_dict(params, like=like, cells=cells)
    names = _names(sizes["num_layers"], sizes["bidirectional"])
    return join([state[name].reshape(-1) for name in names])


def sizes_of(params: PyTree, *, cells: Any = None) -> dict[str, Any]:
    """The sizes of an LSTM network, by the arguments of `jax.experimental.rnn.lstm`."""
    whole = weights.parts(params, cells, loaded=True)
    kinds = {part.kind for layer in whole for part in layer}
    if kinds != {LSTM}:
        names = ", ".join(sorted(kind.name for kind in kinds))
        raise ValueError(f"params: expected LSTM layers, got {names}")
    both = weights.directions(whole, "cuDNN") == 2
    sizes = whole[0][0].sizes
    return dict(
        input_size=sizes.n_in,
        hidden_size=sizes.n_hidden,
        num_layers=len(whole),
        bidirectional=both,
    )


def _vector(source: Any) -> tuple[str, Any, dict[str, str]]:
    """Where it is from, the vector, and a file's metadata."""
    if not is_path(source):
        return "weights", as_array(source), {}
    found = arrays(source, "/")
    if set(found.named) != {KEY}:
        names = ", ".join(found.named)
        raise ValueError(f"{found.origin}: expected the key {KEY!r} alone, got {names}")
    return f"{found.origin}: {KEY}", found.named[KEY], found.about


def _sizes(
    where: str, given: dict, about: dict[str, str]
) -> tuple[int, int, int, bool]:
    def size(name: str, otherwise: str = "") -> int:
        text = str(given.get(name, about.get(name, otherwise)))
        if not text:
            raise ValueError(f"{where}: {name} is not known; it has to be given")
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise ValueError(f"{where}: {name}: expected a whole number, got {text!r}")
        n = int(text)
        positive(**{name: n})
        return n

    both = str(given.get("bidirectional", about.get("bidirectional", False)))
    if both not in ("True", "False"):
        raise ValueError(
            f"{where}: bidirectional: expected True or False, got {both!r}"
        )
    layers = size("num_layers", "1")
    return size("input_size"), size("hidden_size"), layers, both == "True"


def _names(num_layers: int, bidirectional: bool) -> list[str]:
    ends = [f"_l{k}{end}" for k in range(num_layers) for end in ("", "_reverse")]
    ends = ends if bidirectional else ends[::2]
    layout = _layouts.by_kind("torch")[LSTM]
    kinds = (layout.w_x + layout.w_h, _layouts.biases_of(layout))
    return [name + end for pair in kinds for end in ends for name in pair]


def _unpacked(
    where: str, vector: Any, n_in: int, n_hidden: int, n_layers: int, both: bool
) -> dict[str, Any]:
    g, between = 4 * n_hidden, (1 + both) * n_hidden
    later = (n_layers - 1) * (between + n_hidden + 2)
    wanted = (1 + both) * g * (n_in + n_hidden + 2 + later)
    if tuple(vector.shape) != (wanted,):
        raise ValueError(
            f"{where}: expected [{wanted}] for {n_in} inputs, {n_hidden} hidden units, "
            f"{n_layers} layers and {1 + both} directions, got {list(vector.shape)}"
        )
    vector, named, at = loaded(vector), {}, 0
    for name in _names(n_layers, both):
        width = {"weight_ih": n_in if "_l0" in name else between, "weight_hh": n_hidden}
        kind = name.split("_l")[0]
        shape = (g, width[kind]) if kind in width else (g,)
        named[name] = vector[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)
    return named
