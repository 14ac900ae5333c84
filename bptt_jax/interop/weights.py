"""What the modules of this room share: networks, named arrays, and what is wrong with them.

A network is a tuple of layers, a layer a tuple of one or two directions of time. Each of
its cells is of a `Kind` that other libraries have too; which one is read off the names
and shapes of its parameters.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from bptt_jax import cells, layers, models, unrolls
from bptt_jax._factory import factory
from bptt_jax.interop import files
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
    make: `(sizes, activation) -> Cell`.
    """

    name: str
    gates: str
    extra: tuple[str, ...]
    make: Callable[[Sizes, Callable], Cell]


LSTM = Kind("LSTM", "ifgo", (), lambda s, _: cells.lstm(s.n_in, s.n_hidden))
PROJECTED_LSTM = Kind(
    "LSTM (projected)",
    "ifgo",
    ("w_r",),
    lambda s, _: cells.lstm(s.n_in, s.n_hidden, projection=s.n_out),
)
GRU = Kind(
    "GRU (reset after the product)",
    "rzn",
    ("b_n",),
    lambda s, _: cells.gru(s.n_in, s.n_hidden),
)
GRU_RESET_BEFORE = Kind(
    "GRU (reset before the product)",
    "rzn",
    (),
    lambda s, _: cells.gru(s.n_in, s.n_hidden, reset_after=False),
)
ELMAN = Kind(
    "simple recurrent network",
    "n",
    (),
    lambda s, activation: cells.elman(s.n_in, s.n_hidden, activation=activation),
)
MGU = Kind("MGU", "fn", ("b_n",), lambda s, _: cells.mgu(s.n_in, s.n_hidden))
KINDS = (LSTM, PROJECTED_LSTM, GRU, GRU_RESET_BEFORE, ELMAN, MGU)


# networks


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
    if not whole or {len(layer) for layer in whole} not in ({1}, {2}):
        raise ValueError(
            "params: expected layers of one direction each, or of two each, got "
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


def network(params: PyTree, activation: Callable = jnp.tanh) -> Network:
    """The cells that go with parameters (see `nested`), whose arrays are copied.

    >>> from bptt_jax import cells, interop
    >>> import jax
    >>> params = cells.lstm(3, 8).init(jax.random.key(0))
    >>> interop.weights.network(params).cells == ((cells.lstm(3, 8),),)
    True
    """
    whole = nested(params)

    def cell(p):
        kind, sizes = kind_of(p)
        return kind.make(sizes, activation)

    return Network(
        tuple(tuple(map(cell, layer)) for layer in whole),
        tuple(tuple(map(on_host, layer)) for layer in whole),
    )


def on_host(named: Mapping) -> dict:
    """NumPy arrays of their own; what is traced stays."""
    return {
        name: a if isinstance(a, Tracer) else np.array(a, order="C")
        for name, a in named.items()
    }


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
    each = [models.bidirectional(*pair, run) for pair in all_cells]

    def both(params, carry, xs, side=Side(), **options):
        after = []
        for layer, p, c in zip(each, params, carry, strict=True):
            c, xs = layer(p, c, xs, side, **options)
            after.append(c)
        return tuple(after), xs

    return both


# named arrays


class Arrays(NamedTuple):
    """Arrays by name: NumPy's, JAX's, or `files.Stored`.

    origin: of messages.
    prefix: of all names, taken off.
    about: the metadata of a file.
    """

    origin: str
    prefix: str
    named: dict[str, Any]
    about: dict[str, str] = {}


def is_path(source: Any) -> bool:
    return isinstance(source, str | os.PathLike)


def arrays(source: Any, separator: str, prefix: str = "") -> Arrays:
    """The arrays of a source whose names begin with `prefix`.

    Args:
      source: a path of a safetensors file, a nested mapping of arrays or tensors, or
        anything that has a `state_dict()`.
      separator: between the names of a nested mapping.
      prefix: what names must begin with; others are not looked at.
    """
    origin, about = "weights", {}
    if is_path(source):
        origin = os.fspath(source)
        named, about = files.stored(source)
    elif hasattr(source, "state_dict"):
        named = dict(source.state_dict())
    elif isinstance(source, Mapping):
        named = flat(source, separator)
    else:
        raise TypeError(
            "source: expected a path of a safetensors file, a mapping of arrays or a "
            f"module, got {type(source).__name__}"
        )
    chosen = {n[len(prefix) :]: a for n, a in named.items() if n.startswith(prefix)}
    if not chosen:
        some = ", ".join(list(named)[:8])
        raise ValueError(f"{origin}: no key begins with {prefix!r}; it has {some}")
    named = {name: as_array(a) for name, a in chosen.items()}
    return Arrays(origin, prefix, named, about)


def flat(tree: Mapping, separator: str) -> dict[str, Any]:
    """A nested mapping by joined names.

    >>> from bptt_jax.interop import weights
    >>> weights.flat({"cell": {"ii": {"kernel": 1}}}, "/")
    {'cell/ii/kernel': 1}
    """
    named = {}
    for name, a in tree.items():
        if isinstance(a, Mapping):
            inner = flat(a, separator)
            named |= {f"{name}{separator}{n}": leaf for n, leaf in inner.items()}
        else:
            named[str(name)] = a
    return named


def as_array(a: Any) -> Any:
    """Tensors of PyTorch as NumPy arrays; others that have a shape as they are."""
    if hasattr(a, "detach"):
        a = a.detach().cpu()
        if str(a.dtype) == "torch.bfloat16":  # NumPy itself has none
            return a.float().numpy().astype(jnp.bfloat16)
        return a.numpy()
    known = isinstance(a, files.Stored) or hasattr(a, "__array_namespace__")
    return a if known else np.asarray(a)


def read(found: Arrays) -> dict[str, Any]:
    """The arrays by name, those that lie in a file read."""
    return {n: loaded(a) for n, a in found.named.items()}


def loaded(a: Any) -> Any:
    return files.load(a) if isinstance(a, files.Stored) else a


class Group(NamedTuple):
    """The arrays of one cell, by what a library calls them within the cell.

    full: short name -> name in the source.
    spell: short name -> what it would be called there.
    """

    origin: str
    named: dict[str, Any]
    full: dict[str, str]
    spell: Callable[[str], str]

    def name(self, short: str) -> str:
        """What messages call an array: where it is from, and its key."""
        return f"{self.origin}: {self.full.get(short) or self.spell(short)}"

    def shape(self, short: str) -> tuple[int, int]:
        """Of a matrix that has to be there."""
        if short not in self.named:
            raise ValueError(f"{self.name(short)} is missing")
        shape = tuple(self.named[short].shape)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(
                f"{self.name(short)}: expected a matrix, got {list(shape)}"
            )
        return shape

    def n_gates(self, short: str, rows: int, n_hidden: int, known: dict) -> int:
        """G, from the axis of the recurrent weights that is G·H."""
        if rows % n_hidden == 0 and rows // n_hidden in known:
            return rows // n_hidden
        names = ", ".join(f"{g}·{n_hidden} ({kind})" for g, kind in known.items())
        raise ValueError(f"{self.name(short)}: expected {names}, got {rows}")

    def checked(self, shapes: dict[str, tuple], optional: tuple = ()) -> dict[str, Any]:
        """The arrays, read, which are those and of one floating dtype."""
        for short in self.named:
            if short not in shapes:
                raise ValueError(f"{self.name(short)}: unknown key")
        for short, shape in shapes.items():
            if short not in self.named and short not in optional:
                raise ValueError(f"{self.name(short)} is missing")
            if short in self.named and tuple(self.named[short].shape) != shape:
                got = list(self.named[short].shape)
                raise ValueError(
                    f"{self.name(short)}: expected {list(shape)}, got {got}"
                )
        self._check_dtypes()
        return {short: loaded(a) for short, a in self.named.items()}

    def _check_dtypes(self) -> None:
        first = next(iter(self.named.values())).dtype
        for short, a in self.named.items():
            if not jnp.issubdtype(a.dtype, jnp.floating):
                raise ValueError(
                    f"{self.name(short)}: expected floating numbers, got {a.dtype}"
                )
            if a.dtype != first:
                raise ValueError(
                    f"{self.name(short)}: expected {first} like the others, got {a.dtype}"
                )


def grouped(found: Arrays, place: Callable, spell: Callable) -> list[list[Group]]:
    """Arrays by layer and direction.

    Args:
      found: the arrays.
      place: `(name) -> (layer, direction, short name)`, or None for a name that is none.
      spell: `(layer, direction, short name) -> name`.
    """
    full: dict[tuple[int, int], dict[str, str]] = {}
    for name in found.named:
        at = place(name)
        if at is None:
            raise ValueError(
                f"{found.origin}: {found.prefix}{name}: unknown key; of a larger model "
                "choose a part by its prefix"
            )
        *where, short = at
        here = full.setdefault((where[0], where[1]), {})
        if short in here:
            raise ValueError(
                f"{found.origin}: {found.prefix}{name}: the same as {here[short]}"
            )
        here[short] = name
    n_layers = 1 + max(k for k, _ in full)
    directions = 1 + max(d for _, d in full)

    def group(k, d):
        names = full.get((k, d), {})
        if not names:
            short = next(iter(next(iter(full.values()))))
            raise ValueError(
                f"{found.origin}: {found.prefix}{spell(k, d, short)} is missing"
            )
        return Group(
            found.origin,
            {short: found.named[name] for short, name in names.items()},
            {short: found.prefix + name for short, name in names.items()},
            lambda short: found.prefix + spell(k, d, short),
        )

    return [[group(k, d) for d in range(directions)] for k in range(n_layers)]


def in_order(origin: str, names: list[str]) -> dict[str, int]:
    """The place of each layer, from names `lstm`, `lstm_1`, `lstm_2`, …

    Raises:
      ValueError: names that say no order.
    """
    unique = list(dict.fromkeys(names))
    parts = [re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", name, re.DOTALL) for name in unique]
    stems = {part[1] for part in parts if part}
    if len(unique) > 1 and len(stems) > 1:
        raise ValueError(
            f"{origin}: layers {', '.join(unique)}: expected numbered names (lstm, "
            "lstm_1, …), which say their order; choose one by its prefix"
        )
    numbers = [int(part[2] or 0) for part in parts if part]
    ranked = sorted(zip(numbers, unique, strict=True))
    return {name: i for i, (_, name) in enumerate(ranked)}


# arrays of any kind


def namespace(a: Any) -> Any:
    """NumPy, or `jax.numpy`: that of the array."""
    return a.__array_namespace__()


def join(parts: list, axis: int = -1) -> Any:
    return namespace(parts[0]).concatenate(parts, axis)


def by_gate(a: Any, n: int) -> list:
    """`[..., G·H]` as G × `[..., H]`."""
    return list(namespace(a).split(a, n, -1))


def zeros_like(a: Any, shape: tuple[int, ...]) -> Any:
    return namespace(a).zeros(shape, a.dtype)


def reordered(a: Any, given: str, wanted: str) -> Any:
    """The gates of the last axis in another order, a letter each."""
    parts = dict(zip(given, by_gate(a, len(given)), strict=True))
    return join([parts[gate] for gate in wanted])


def halves(b: Any, like: Sequence | None = None) -> tuple[Any, Any]:
    """Two biases whose sum is b, bit for bit.

    Args:
      b: the sum.
      like: two biases, kept where their sum is b. Elsewhere, and without them, the second
        is -0, which can be added to anything without changing a bit.
    """
    xp = namespace(b)
    none = xp.full_like(b, -0.0)
    if like is None:
        return b, none
    first, second = (xp.asarray(a) for a in like)
    same = first + second == b
    return xp.where(same, first, b), xp.where(same, second, none)


def split_as(once: Sequence, before: Sequence, summed: int) -> list:
    """Two biases with their first `summed` numbers, which are only ever added, split as
    those before.
    """
    shapes = [[list(np.shape(a)) for a in pair] for pair in (once, before)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"like: expected biases {shapes[0]}, got {shapes[1]}")
    split = halves(once[0][:summed], [a[:summed] for a in before])
    return [join([a, b[summed:]]) for a, b in zip(split, once, strict=True)]


def gru_biases(first: Any, second: Any) -> dict[str, Any]:
    """Ours of two, in the order r, z, n: of n the second is a parameter of its own."""
    (r, z, n), (q_r, q_z, q_n) = by_gate(first, 3), by_gate(second, 3)
    return dict(b=join([r + q_r, z + q_z, n]), b_n=q_n)


def no_bias(name: str, *biases: Any) -> None:
    """Refuses to leave out a bias that is there."""
    if any(not isinstance(b, Tracer) and np.any(b) for b in biases):
        raise ValueError(f"like: it has no {name}, but the network's bias is not zero")
