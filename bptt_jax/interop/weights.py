"""Networks as the modules of this room read and write them, and the unroll of one.

A network is a tuple of layers, a layer a tuple of one or two directions of time. Each of
its cells is of a `Kind` that other libraries have too; which one is read off the names
and shapes of its parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_jax import cells, layers, models, unrolls
from bptt_jax._factory import factory
from bptt_jax.interop._arrays import on_host
from bptt_jax.types import Cell, PyTree, Side, Unroll


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
    gates: our order, a letter each.
    extra: parameters beside `w_x [I, G·H]`, `w_h [O, G·H]`, `b [G·H]`.
    make: `(sizes, activation, **options) -> Cell`.
    """

    name: str
    gates: str
    extra: tuple[str, ...]
    make: Callable[..., Cell]


LSTM = Kind("LSTM", "ifgo", (), lambda s, _, **o: cells.lstm(s.n_in, s.n_hidden, **o))
PROJECTED_LSTM = Kind(
    "LSTM (projected)",
    "ifgo",
    ("w_r",),
    lambda s, _, **o: cells.lstm(s.n_in, s.n_hidden, projection=s.n_out, **o),
)
GRU = Kind(
    "GRU (reset after the product)",
    "rzn",
    ("b_n",),
    lambda s, _, **o: cells.gru(s.n_in, s.n_hidden, **o),
)
GRU_RESET_BEFORE = Kind(
    "GRU (reset before the product)",
    "rzn",
    (),
    lambda s, _, **o: cells.gru(s.n_in, s.n_hidden, reset_after=False, **o),
)
ELMAN = Kind(
    "simple recurrent network",
    "n",
    (),
    lambda s, phi, **o: cells.elman(s.n_in, s.n_hidden, activation=phi, **o),
)
MGU = Kind("MGU", "fn", ("b_n",), lambda s, _, **o: cells.mgu(s.n_in, s.n_hidden, **o))
KINDS = (LSTM, PROJECTED_LSTM, GRU, GRU_RESET_BEFORE, ELMAN, MGU)


def kind_of(params: Mapping) -> tuple[Kind, Sizes]:
    """Which cell has these parameters, and its sizes.

    Raises:
      ValueError: none that other libraries have. (The parameters of `cells.ctrnn` with a
        fixed τ are those of `cells.elman`, for which they are taken.)

    >>> from bptt_jax import cells, interop
    >>> import jax
    >>> params = cells.gru(3, 8).init(jax.random.key(0))
    >>> kind, sizes = interop.weights.kind_of(params)
    >>> kind is interop.weights.GRU, sizes.n_hidden
    (True, 8)
    """
    found = {name: tuple(np.shape(a)) for name, a in params.items()}
    w_x, w_h = found.get("w_x", ()), found.get("w_h", ())
    if len(w_x) == len(w_h) == 2:
        for kind in KINDS:
            sizes = Sizes(w_x[0], w_h[1] // len(kind.gates), w_h[0])
            if found == _shapes(kind, sizes):
                return kind, sizes
    known = ", ".join(kind.name for kind in KINDS)
    raise ValueError(f"params: expected those of one of {known}; got {found}")


def _shapes(kind: Kind, s: Sizes) -> dict[str, tuple[int, ...]] | None:
    """What the parameters of a kind are; None where it has no such sizes."""
    if s.n_out != s.n_hidden and "w_r" not in kind.extra:
        return None
    g = len(kind.gates) * s.n_hidden
    extra = dict(b_n=(s.n_hidden,), w_r=(s.n_hidden, s.n_out))
    return dict(w_x=(s.n_in, g), w_h=(s.n_out, g), b=(g,)) | {
        name: extra[name] for name in kind.extra
    }


def nested(params: PyTree) -> tuple[tuple[dict, ...], ...]:
    """Parameters as those of a `Network`: layers of directions.

    Args:
      params: of one cell, of a stack of cells, of a network's layers and directions, or
        a `Network`.

    Raises:
      ValueError: layers that do not fit together, or parameters of no `Kind`.
    """
    if isinstance(params, Network):
        params = params.params
    if isinstance(params, Mapping):
        params = ((params,),)
    whole: Any = tuple((p,) if isinstance(p, Mapping) else tuple(p) for p in params)
    if not whole or not {len(layer) for layer in whole} <= {1, 2}:
        raise ValueError(
            "params: expected layers of one direction or of two, got "
            f"{[len(layer) for layer in whole]}"
        )
    before = None
    for k, layer in enumerate(whole):
        sizes = [kind_of(p)[1] for p in layer]
        for s in sizes:
            if s.n_in != (before or sizes[0].n_in):
                raise ValueError(
                    f"layer {k}: expected {before or sizes[0].n_in} inputs, got {s.n_in}"
                )
        before = sum(s.n_out for s in sizes)
    return whole


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


def network(params: PyTree, activation: Callable | Sequence = jnp.tanh) -> Network:
    """The cells that go with parameters (see `nested`), whose arrays are copied.

    Args:
      params: as of `nested`.
      activation: of simple recurrent networks; one for all, or one for each cell, in
        layers of directions.

    >>> from bptt_jax import cells, interop
    >>> import jax
    >>> params = cells.lstm(3, 8).init(jax.random.key(0))
    >>> interop.weights.network(params).cells == ((cells.lstm(3, 8),),)
    True
    """
    whole = nested(params)
    if callable(activation):
        activation = [[activation] * len(layer) for layer in whole]

    def cell(p, phi):
        kind, sizes = kind_of(p)
        return kind.make(sizes, phi)

    return Network(
        tuple(tuple(map(cell, *of)) for of in zip(whole, activation, strict=True)),
        tuple(tuple(map(on_host, layer)) for layer in whole),
    )


def init_carry(net: Network, batch_shape: tuple[int, ...]) -> PyTree:
    """The carry at the start, in the places of the cells."""
    return tuple(
        tuple(c.init_carry(p, batch_shape) for c, p in zip(layer, ps, strict=True))
        for layer, ps in zip(net.cells, net.params, strict=True)
    )


@factory
def unroll(
    all_cells: tuple[tuple[Cell, ...], ...], run: Unroll = unrolls.bptt
) -> Unroll:
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


def _both_directions(all_cells, run: Unroll) -> Unroll:
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


def _forward(cell: Cell, run: Unroll) -> Unroll:
    """A layer of one direction, between those of two."""
    layer = layers.recurrent(cell)

    def forward(params, carry, xs, side=Side(), **options):
        carry, ys = run(layer, *params, *carry, xs, side, **options)
        return (carry,), ys

    return forward
