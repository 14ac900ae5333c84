"""Where other libraries have the parameters of their cells: one table, which the formats
of files and the live modules of flax both read.
"""

from collections.abc import Callable, Mapping
from operator import neg
from typing import Any, NamedTuple

from bptt_jax.interop._arrays import (
    gru_biases,
    halves,
    join,
    namespace,
    reordered,
    split_gates,
    zeros_like,
)
from bptt_jax.interop._named import Group
from bptt_jax.interop.weights import (
    ELMAN,
    GRU,
    GRU_RESET_BEFORE,
    LSTM,
    MGU,
    PROJECTED_LSTM,
    Kind,
    Part,
    Sizes,
)

Names = tuple[str, ...]
"""Of one array with all gates in it, or of an array for each gate."""


class Layout(NamedTuple):
    """A cell of another library, and where its parameters are.

    Kernels, or biases, of the same name are one array with both in it.

    name: of its class there.
    kind: the cell of ours.
    gates: its order, in the letters of ours.
    w_x, w_h: kernels of the inputs and of the state.
    biases: with the inputs, with the state, or both; ours is their sum. Where a kind has
        a `b_n`, that is n's part of the second.
    b_n: its name where it is an array of its own; "" with one bias: it is zero.
    w_r: of a projection.
    transposed: whether gates are rows, not columns.
    one_more: gates to whose bias the library adds 1.
    negated: gates that are 1 - ours.
    folder: what names of arrays begin with, where that says which cell it is.
    """

    name: str
    kind: Kind
    gates: str
    w_x: Names
    w_h: Names
    biases: tuple[Names, ...]
    b_n: str = ""
    w_r: str = ""
    transposed: bool = False
    one_more: str = ""
    negated: str = ""
    folder: str = ""


def _dense(name: str, kind: Kind, of_x: str, of_h: str, biased: str, b_n: str = ""):
    """Dense layers of flax, with the bias of the inputs (`x`) or of the state (`h`)."""
    x, h = of_x.split(), of_h.split()
    w_x, w_h = (tuple(f"{dense}/kernel" for dense in side) for side in (x, h))
    b = tuple(f"{dense}/bias" for dense in (x if biased == "x" else h))
    return Layout(name, kind, kind.gates, w_x, w_h, (b,), b_n)


def _rows(name: str, kind: Kind, biases: str, **more) -> Layout:
    """PyTorch's names, which are Equinox's."""
    w_x, w_h, *b = ((n,) for n in ("weight_ih", "weight_hh", *biases.split()))
    return Layout(name, kind, kind.gates, w_x, w_h, tuple(b), transposed=True, **more)


def _keras(name: str, kind: Kind, gates: str, n_biases: int, folder: str) -> Layout:
    b = (("bias",),) * n_biases
    return Layout(
        name, kind, gates, ("kernel",), ("recurrent_kernel",), b, folder=folder
    )


_FOUR = "ii if ig io", "hi hf hg ho", "h"
_BOTH = "bias_ih bias_hh"
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "flax.linen": (
        _dense("SimpleCell", ELMAN, "i", "h", "x"),
        _dense("LSTMCell", LSTM, *_FOUR),
        _dense("OptimizedLSTMCell", LSTM, *_FOUR),
        _dense("GRUCell", GRU, "ir iz in", "hr hz hn", "x", "hn/bias"),
        _dense("MGUCell", MGU, "if in", "hf hn", "x", "hn/bias"),
    ),
    "flax.nnx": (
        _dense("SimpleCell", ELMAN, "dense_i", "dense_h", "x"),
        _dense("LSTMCell", LSTM, "ii if_ ig io", "hi hf hg ho", "h"),
        _dense("OptimizedLSTMCell", LSTM, "dense_i", "dense_h", "h"),
        _dense("GRUCell", GRU, "dense_i", "dense_h", "x"),
    ),
    "torch": (
        _rows("nn.LSTM", LSTM, _BOTH),
        _rows("nn.LSTM", PROJECTED_LSTM, _BOTH, w_r="weight_hr"),
        _rows("nn.GRU", GRU, _BOTH),
        _rows("nn.RNN", ELMAN, _BOTH),
    ),
    "keras": (
        _keras("LSTM", LSTM, "ifgo", 1, "lstm"),
        _keras("GRU", GRU, "zrn", 2, "gru"),
        _keras("GRU", GRU_RESET_BEFORE, "zrn", 1, "gru"),
        _keras("SimpleRNN", ELMAN, "n", 1, "simple_rnn"),
    ),
    "haiku": (
        Layout(
            "LSTM", LSTM, "igfo", ("linear/w",), ("linear/w",), (("linear/b",),),
            one_more="f", folder="lstm",
        ),
        Layout(
            "GRU", GRU_RESET_BEFORE, "zrn", ("w_i",), ("w_h",), (("b",),),
            negated="z", folder="gru",
        ),
        Layout(
            "VanillaRNN", ELMAN, "n", ("linear/w",), ("linear_1/w",),
            (("linear/b",), ("linear_1/b",)), folder="vanilla_rnn",
        ),
    ),
    "equinox": (
        _rows("LSTMCell", LSTM, "bias"),
        _rows("GRUCell", GRU, "bias", b_n="bias_n"),
    ),
}  # fmt: skip


def by_kind(library: str) -> dict[Kind, Layout]:
    """What a library has; of two cells of a kind, whose arrays are alike, one."""
    return {a.kind: a for a in LAYOUTS[library]}


def of_part(library: str) -> Callable[[Part], dict[str, Any]]:
    """`(part) -> arrays` of a library's cell, as `theirs`."""
    layouts = by_kind(library)
    return lambda part: theirs(layouts[part.kind], part.params)


def check_kinds(whole: tuple, layouts: Mapping, library: str) -> None:
    """Refuses a network with a cell that a library does not have."""
    for part in (part for layer in whole for part in layer):
        if part.kind not in layouts:
            raise ValueError(f"params: {library} has no {part.kind.name}")


def by_gates(library: str) -> dict[int, Layout]:
    """What a library has, by how many gates it has; of those with as many, the first."""
    return {len(a.gates): a for a in reversed(LAYOUTS[library])}


def chosen(g: Group, short: str, columns: int, n_hidden: int, among: dict) -> Layout:
    """That of `by_gates` whose kernel of the state has so many columns, G·H."""
    names = {n: a.name for n, a in sorted(among.items(), reverse=True)}
    return among[g.n_gates(short, columns, n_hidden, names)]


def shapes(a: Layout, s: Sizes) -> dict[str, tuple[int, ...]]:
    """What the arrays of a cell are, by name."""
    turn = slice(None, None, -1 if a.transposed else 1)
    columns = len(a.gates) * s.n_hidden
    found: dict[str, tuple[int, ...]] = {}
    for pair in zip(a.w_x, a.w_h, strict=True):
        for name, rows in zip(pair, (s.n_in, s.n_out), strict=True):
            both = s.n_in + s.n_out if pair[0] == pair[1] else rows
            found[name] = (both, columns // len(a.w_x))[turn]
    if a.w_r:
        found[a.w_r] = (s.n_hidden, s.n_out)[turn]
    for names in a.biases:
        of_one = (columns // len(names),)
        found |= dict.fromkeys(names, (2, *of_one) if _stacked(a) else of_one)
    return found | ({a.b_n: (s.n_hidden,)} if a.b_n else {})


def biases_of(a: Layout) -> Names:
    """The names of all its biases."""
    return tuple(name for names in (*a.biases, (a.b_n,)) for name in names if name)


def checked(a: Layout, g: Group, s: Sizes) -> dict[str, Any]:
    """The arrays of a cell, as `Group.checked`; without any bias they are zeros."""
    wanted, biases = shapes(a, s), biases_of(a)
    if g.named.keys() & set(biases):
        return g.checked(wanted)
    named = g.checked({n: shape for n, shape in wanted.items() if n not in biases})
    return named | {n: zeros_like(named[a.w_h[0]], wanted[n]) for n in biases}


def ours(a: Layout, named: Mapping[str, Any]) -> dict[str, Any]:
    """Our parameters of the arrays of a cell.

    Raises:
      KeyError: an array is not there.
    """
    w_x, w_h = (_taken(a, w) for w in _kernels(a, named))
    params = dict(w_x=w_x, w_h=w_h)
    if a.w_r:
        params["w_r"] = _turned(a, named[a.w_r])
    if _stacked(a):
        biases = [*named[a.biases[0][0]]]
    else:
        biases = [_beside([named[name] for name in names]) for names in a.biases]
    biases = [_taken(a, b, lambda b: b + 1) for b in biases]
    if "b_n" in a.kind.extra and len(biases) == 2:
        return params | gru_biases(*biases)
    params["b"] = biases[0] if len(biases) == 1 else biases[0] + biases[1]
    if "b_n" in a.kind.extra:
        own = named[a.b_n] if a.b_n else zeros_like(params["b"], w_h.shape[:1])
        params["b_n"] = own
    return params


def theirs(a: Layout, params: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a cell with our parameters; of two biases the second is -0, but for
    what is our `b_n`.
    """
    w_x, w_h = (_turned(a, _given(a, params[name])) for name in ("w_x", "w_h"))
    if a.w_x == a.w_h:
        named = {a.w_x[0]: join([w_x, w_h], 0)}
    else:
        named = _by_name(a.w_x, w_x) | _by_name(a.w_h, w_h)
    if a.w_r:
        named[a.w_r] = _turned(a, params["w_r"])
    biases = [params["b"]] if len(a.biases) == 1 else [*halves(params["b"])]
    if "b_n" in a.kind.extra and len(biases) == 2:
        of_n = params["b_n"].shape[-1]
        biases[1] = join([biases[1][:-of_n], params["b_n"]])
    biases = [_given(a, b, lambda b: b - 1) for b in biases]
    if _stacked(a):
        return named | {a.biases[0][0]: namespace(biases[0]).stack(biases)}
    for names, b in zip(a.biases, biases, strict=True):
        named |= _by_name(names, b)
    return named | ({a.b_n: params["b_n"]} if a.b_n else {})


def _stacked(a: Layout) -> bool:
    return len(a.biases) == 2 and a.biases[0] == a.biases[1]


def _kernels(a: Layout, named: Mapping) -> list[Any]:
    """That of the inputs and that of the state, gates side by side in its order."""
    if a.w_x == a.w_h:
        whole = named[a.w_x[0]]
        n_hidden = whole.shape[-1] // len(a.gates)
        return [whole[:-n_hidden], whole[-n_hidden:]]
    return [
        _turned(a, _beside([named[name] for name in names])) for names in (a.w_x, a.w_h)
    ]


def _turned(a: Layout, matrix: Any) -> Any:
    return matrix.T if a.transposed else matrix


def _taken(a: Layout, array: Any, one_more: Callable | None = None) -> Any:
    """Its gates as ours."""
    return reordered(array, a.gates, a.kind.gates, _changes(a, one_more))


def _given(a: Layout, array: Any, one_more: Callable | None = None) -> Any:
    """Our gates as its own."""
    return reordered(array, a.kind.gates, a.gates, _changes(a, one_more))


def _changes(a: Layout, one_more: Callable | None) -> dict[str, Callable]:
    more = dict.fromkeys(a.one_more, one_more) if one_more else {}
    return dict.fromkeys(a.negated, neg) | more


def _beside(parts: list) -> Any:
    return parts[0] if len(parts) == 1 else join(parts)


def _by_name(names: Names, array: Any) -> dict[str, Any]:
    return dict(zip(names, split_gates(array, len(names)), strict=True))
