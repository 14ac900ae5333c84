"""Networks as the modules of this room read and write them, and the unroll of one.

A network is a tuple of layers, a layer a tuple of one or two directions of time. Each of
its cells is of a `Kind` that other libraries have too. Which one, the cell says; of bare
parameters it is read off their names and shapes, where these say it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_jax import cells, layers, models, unrolls
from bptt_jax._factory import expect, factory
from bptt_jax.interop._arrays import on_host
from bptt_jax.types import BoundUnroll, Cell, PyTree, Side, Unroll


class Network(NamedTuple):
    """Recurrent layers, and their parameters.

    cells: for each layer the cell of each direction: `((cell,), …)`, or
        `((forward, backward), …)`.
    params: the parameters in the same places.
    """

    cells: tuple[tuple[Cell, ...], ...]
    params: tuple[tuple[dict, ...], ...]


class Sizes(NamedTuple):
    """Features of a cell's input, its hidden units, and features of its output."""

    n_in: int
    n_hidden: int
    n_out: int


class Kind(NamedTuple):
    """A cell that other libraries have, too.

    name: in messages.
    cell: the name of ours.
    gates: our order, a letter each.
    extra: parameters beside `w_x [I, G·H]`, `w_h [O, G·H]`, `b [G·H]`.
    make: `(sizes, activation, **options) -> Cell`.
    alike: cells of ours with the same parameters that compute something else.
    """

    name: str
    cell: str
    gates: str
    extra: tuple[str, ...]
    make: Callable[..., Cell]
    alike: tuple[str, ...] = ()


LSTM = Kind(
    "LSTM", "lstm", "ifgo", (), lambda s, _, **o: cells.lstm(s.n_in, s.n_hidden, **o)
)
PROJECTED_LSTM = Kind(
    "LSTM (projected)",
    "lstm",
    "ifgo",
    ("w_r",),
    lambda s, _, **o: cells.lstm(s.n_in, s.n_hidden, projection=s.n_out, **o),
)
GRU = Kind(
    "GRU (reset after the product)",
    "gru",
    "rzn",
    ("b_n",),
    lambda s, _, **o: cells.gru(s.n_in, s.n_hidden, **o),
)
GRU_RESET_BEFORE = Kind(
    "GRU (reset before the product)",
    "gru",
    "rzn",
    (),
    lambda s, _, **o: cells.gru(s.n_in, s.n_hidden, reset_after=False, **o),
)
ELMAN = Kind(
    "simple recurrent network",
    "elman",
    "n",
    (),
    lambda s, phi, **o: cells.elman(s.n_in, s.n_hidden, activation=phi, **o),
    alike=("ctrnn",),
)
MGU = Kind(
    "MGU", "mgu", "fn", ("b_n",), lambda s, _, **o: cells.mgu(s.n_in, s.n_hidden, **o)
)
KINDS = (LSTM, PROJECTED_LSTM, GRU, GRU_RESET_BEFORE, ELMAN, MGU)


def kind_of(
    params: Mapping, cell: Cell | None = None, *, loaded: bool = False
) -> tuple[Kind, Sizes]:
    """Which cell has these parameters, and its sizes.

    Args:
      params: of one cell.
      cell: whose they are; None, or one without a name: their names and shapes are all
        there is to say it. (Those of `cells.zoneout` are then taken for those of the cell
        within.)
      loaded: whether they are from another library, of which none has a cell that is
        `alike`.

    Raises:
      ValueError: none that other libraries have; or more than one cell has such
        parameters (`cells.elman`, and `cells.ctrnn` with a fixed τ), and none is given.

    >>> from bptt_jax import cells, interop
    >>> import jax
    >>> params = cells.gru(3, 8).init(jax.random.key(0))
    >>> kind, sizes = interop.weights.kind_of(params)
    >>> kind is interop.weights.GRU, sizes.n_hidden
    (True, 8)
    """
    if cell is not None:
        expect(Cell, cells=cell)
    name = "" if cell is None else cell.name
    kinds = _kinds_of(name) if name else KINDS
    found = {name: tuple(np.shape(a)) for name, a in params.items()}
    w_x, w_h = found.get("w_x", ()), found.get("w_h", ())
    if len(w_x) == len(w_h) == 2:
        for kind in kinds:
            sizes = Sizes(w_x[0], w_h[1] // len(kind.gates), w_h[0])
            if found == _shapes(kind, sizes):
                if kind.alike and not (name or loaded):
                    raise ValueError(_tie(kind, sizes))
                return kind, sizes
    known = ", ".join(kind.name for kind in kinds)
    raise ValueError(f"params: expected those of one of {known}; got {found}")


def _tie(kind: Kind, s: Sizes) -> str:
    return (
        f"params: {' and '.join((kind.cell, *kind.alike))} have parameters of these names "
        "and shapes; expected cells=, which says what they are "
        f"(cells=cells.{kind.cell}({s.n_in}, {s.n_hidden}), say)"
    )


def _kinds_of(name: str) -> tuple[Kind, ...]:
    """The kinds that a cell of ours can be, by its options."""
    kinds = tuple(kind for kind in KINDS if kind.cell == name)
    if not kinds:
        known = ", ".join(dict.fromkeys(kind.cell for kind in KINDS))
        raise ValueError(
            f"cells: expected one of {known}, which other libraries have, too, got {name}"
        )
    return kinds


def _shapes(kind: Kind, s: Sizes) -> dict[str, tuple[int, ...]] | None:
    """What the parameters of a kind are; None where it has no such sizes."""
    if s.n_out != s.n_hidden and "w_r" not in kind.extra:
        return None
    g = len(kind.gates) * s.n_hidden
    extra = dict(b_n=(s.n_hidden,), w_r=(s.n_hidden, s.n_out))
    return dict(w_x=(s.n_in, g), w_h=(s.n_out, g), b=(g,)) | {
        name: extra[name] for name in kind.extra
    }


class Part(NamedTuple):
    """The cell of one direction of a layer.

    kind, sizes: what it is.
    params: its parameters.
    cell: ours, None where it was not given.
    """

    kind: Kind
    sizes: Sizes
    params: Mapping
    cell: Cell | None = None


def parts(
    params: PyTree, cells: Any = None, *, loaded: bool = False
) -> tuple[tuple[Part, ...], ...]:
    """What each cell of a network is, in layers of directions.

    Args:
      params: of one cell, of a stack of cells, of a network's layers and directions, or
        a `Network`. Of a stack with names a dict by these, with `cells`.
      cells: whose they are, in the same places; None: those of a `Network`, else see
        `kind_of`. A dict by names is in the order in which they are run.
      loaded: as of `kind_of`.

    Raises:
      ValueError: layers that do not fit together, parameters of no `Kind`, or of two
        cells of which neither is given.
      TypeError: cells that are none.
    """
    if isinstance(params, Network):
        params, cells = params.params, params.cells if cells is None else cells
    if _is_named(params):
        params, cells = _in_order(params, cells)
    whole = _in_layers(params, Mapping, "params")
    each: Any = [[None] * len(layer) for layer in whole]
    if cells is not None:
        each = _cells_in_layers(cells)
        if [*map(len, each)] != [*map(len, whole)]:
            raise ValueError(
                "cells: expected as many layers and directions as params have, "
                f"{[*map(len, whole)]}, got {[*map(len, each)]}"
            )
    found = tuple(
        tuple(
            Part(*kind_of(p, c, loaded=loaded), p, c) for p, c in zip(*of, strict=True)
        )
        for of in zip(whole, each, strict=True)
    )
    _check_sizes(found)
    return found


def _is_named(params: PyTree) -> bool:
    """Whether they are parameters by names of layers."""
    each = params.values() if isinstance(params, Mapping) else ()
    return bool(each) and all(isinstance(a, Mapping) for a in each)


def _in_order(params: Mapping, cells: Any) -> tuple[tuple, tuple]:
    """Parameters and cells in the order of the cells."""
    if not isinstance(cells, Mapping) or set(cells) != set(params):
        raise ValueError(
            "cells: expected a dict by the names of the layers, in the order in which they "
            f"are run, which that of the parameters ({', '.join(params)}) does not say; got "
            + (", ".join(cells) if isinstance(cells, Mapping) else type(cells).__name__)
        )
    return tuple(params[name] for name in cells), tuple(cells.values())


def _cells_in_layers(cells: Any) -> tuple[tuple[Cell, ...], ...]:
    """Cells as those of a `Network`: from one, a stack, or layers of directions."""
    cells = tuple(cells.values()) if isinstance(cells, Mapping) else cells
    of = cells if type(cells) in (tuple, list) else (cells,)
    for layer in of:
        if type(layer) not in (tuple, list):
            expect(Cell, cells=layer)
    return _in_layers(cells, Cell, "cells")


def _in_layers(tree: Any, kind: type, name: str) -> tuple[tuple[Any, ...], ...]:
    if isinstance(tree, kind):
        tree = ((tree,),)
    whole = tuple((a,) if isinstance(a, kind) else tuple(a) for a in tree)
    if not whole or not {len(layer) for layer in whole} <= {1, 2}:
        raise ValueError(
            f"{name}: expected layers of one direction or of two, got "
            f"{[len(layer) for layer in whole]}"
        )
    return whole


def _check_sizes(whole: tuple[tuple[Part, ...], ...]) -> None:
    before = None
    for k, layer in enumerate(whole):
        sizes = [part.sizes for part in layer]
        for s in sizes:
            if s.n_in != (before or sizes[0].n_in):
                raise ValueError(
                    f"layer {k}: expected {before or sizes[0].n_in} inputs, got {s.n_in}"
                )
        before = sum(s.n_out for s in sizes)


def nested(params: PyTree) -> tuple[tuple[dict, ...], ...]:
    """Parameters as those of a `Network`: layers of directions.

    Args:
      params: as of `parts`.

    Raises:
      ValueError: layers that do not fit together, or parameters of no `Kind`.
    """
    if isinstance(params, Network):
        params = params.params
    whole = parts(params, loaded=True)
    return tuple(tuple(dict(part.params) for part in layer) for layer in whole)


def directions(whole: tuple, library: str) -> int:
    """Of each layer of a library that has as many in all of them.

    Raises:
      ValueError: the layers differ.
    """
    each = [len(layer) for layer in whole]
    if len(set(each)) > 1:
        raise ValueError(
            f"params: {library} has layers of one direction each, or of two each, got "
            f"{each}"
        )
    return each[0]


def network(
    params: PyTree, activation: Callable | Sequence | None = None, cells: Any = None
) -> Network:
    """The cells that go with parameters, whose arrays are copied.

    Args:
      params: as of `parts`.
      activation: of simple recurrent networks, which those of `cells.elman` are where it
        is given; one for all, or one for each cell, in layers of directions.
      cells: what they are, as of `parts`; these are then the network's.

    >>> from bptt_jax import cells, interop
    >>> import jax
    >>> params = cells.lstm(3, 8).init(jax.random.key(0))
    >>> interop.weights.network(params).cells == ((cells.lstm(3, 8),),)
    True
    """
    if isinstance(params, Network) and cells is None and activation is None:
        cells = params.cells
    whole = parts(params, cells, loaded=activation is not None)
    copied = tuple(tuple(on_host(part.params) for part in layer) for layer in whole)
    if cells is not None:
        return Network(_cells_in_layers(cells), copied)
    phi = activation or jnp.tanh
    if callable(phi):
        phi = [[phi] * len(layer) for layer in whole]
    made = tuple(tuple(map(_cell, *of)) for of in zip(whole, phi, strict=True))
    return Network(made, copied)


def _cell(part: Part, activation: Callable) -> Cell:
    return part.kind.make(part.sizes, activation)


def init_carry(net: Network, batch_shape: tuple[int, ...]) -> PyTree:
    """The carry at the start, in the places of the cells."""
    return tuple(
        tuple(c.init_carry(p, batch_shape) for c, p in zip(layer, ps, strict=True))
        for layer, ps in zip(net.cells, net.params, strict=True)
    )


@factory
def unroll(
    all_cells: tuple[tuple[Cell, ...], ...], run: Unroll = unrolls.bptt
) -> BoundUnroll:
    """The unroll of a whole network; its backward is that of `run`.

    Args:
      all_cells: of a `Network`.
      run: the unroll of a layer.

    Returns:
      `(params, carry, xs, side=Side(), **options) -> (carry, ys)`; params and carry as
      of a `Network`. Layers of one direction are one `layers.stack`; two directions need
      the whole sequence, so layer follows layer, each on both outputs of that before.

    >>> from bptt_jax import cells, interop
    >>> import jax, jax.numpy as jnp
    >>> params = cells.lstm(3, 8).init(jax.random.key(0))
    >>> net = interop.weights.network([[params, params]])
    >>> run = interop.weights.unroll(net.cells)
    >>> carry = interop.weights.init_carry(net, (2,))
    >>> carry, ys = run(net.params, carry, jnp.ones((5, 2, 3)))
    >>> ys.shape
    (5, 2, 16)
    """
    if any(len(layer) == 2 for layer in all_cells):
        return _both_directions(all_cells, run)
    stack = layers.stack(*(layers.recurrent(cell) for (cell,) in all_cells))

    def one_direction(params, carry, xs, side=Side(), **options):
        params, carry = (tuple(a for (a,) in tree) for tree in (params, carry))
        carry, ys = run(stack, params, carry, xs, side, **options)
        return tuple((c,) for c in carry), ys

    return one_direction


def _both_directions(all_cells, run: Unroll) -> BoundUnroll:
    each = [
        models.bidirectional(*of, run) if len(of) == 2 else _forward(*of, run)
        for of in all_cells
    ]

    def both(params, carry, xs, side=Side(), **options):
        after = []
        for layer, p, c in zip(each, params, carry, strict=True):
            c, xs = layer(p, c, xs, side, **options)
            after.append(c)
        return tuple(after), xs

    return both


def _forward(cell: Cell, run: Unroll) -> BoundUnroll:
    """A layer of one direction, between those of two."""
    layer = layers.recurrent(cell)

    def forward(params, carry, xs, side=Side(), **options):
        carry, ys = run(layer, *params, *carry, xs, side, **options)
        return (carry,), ys

    return forward
