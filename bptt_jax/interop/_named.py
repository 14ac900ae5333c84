"""Arrays by the names of other libraries, and what is wrong with them in one line."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_jax.interop import files
from bptt_jax.interop._arrays import on_host


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
        named = files.flat(source, separator)
    else:
        raise TypeError(
            "source: expected a path of a safetensors file, a mapping of arrays or a "
            f"module, got {type(source).__name__}"
        )
    chosen = {n[len(prefix) :]: a for n, a in named.items() if n.startswith(prefix)}
    if not named:
        raise ValueError(f"{origin}: no arrays at all")
    if not chosen:
        some = ", ".join(list(named)[:8])
        raise ValueError(f"{origin}: no key begins with {prefix!r}; it has {some}")
    named = {n: _read(f"{origin}: {prefix}{n}", a) for n, a in chosen.items()}
    return Arrays(origin, prefix, named, about)


def _read(where: str, a: Any) -> Any:
    files.check_dtype(where, a)
    try:
        return as_array(a)
    except (TypeError, RuntimeError) as error:  # float8, meta and other tensors
        why = str(error).splitlines()[0]
        raise ValueError(f"{where}: no array of numbers: {why:.200}") from None


def as_array(a: Any) -> Any:
    """Tensors of PyTorch as NumPy arrays; others that have a shape as they are."""
    if hasattr(a, "detach"):
        a = a.detach().cpu()
        if str(a.dtype) == "torch.bfloat16":  # NumPy itself has none
            return a.float().numpy().astype(jnp.bfloat16)
        return a.numpy()
    known = isinstance(a, files.Stored) or hasattr(a, "__array_namespace__")
    return a if known else np.asarray(a)


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


def grouped(
    found: Arrays, place: Callable, spell: Callable, both: set[int] | None = None
) -> list[list[Group]]:
    """Arrays by layer and direction.

    Args:
      found: the arrays.
      place: `(name) -> (layer, direction, short name)`, or None for a name that is none.
      spell: `(layer, direction, short name) -> name`.
      both: the layers of two directions; None: all of them, if one is.
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
    if both is None:
        both = set(range(n_layers)) if any(d for _, d in full) else set()

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

    return [[group(k, d) for d in range(1 + (k in both))] for k in range(n_layers)]


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


def written(
    whole: tuple,
    theirs: Callable,
    spell: Callable,
    like: list[list[Group]] | None = None,
    as_before: Callable | None = None,
) -> dict[str, Any]:
    """The arrays of a network by another library's names.

    Args:
      whole: as of `weights.parts`.
      theirs: `(part) -> arrays` by short names, of one cell.
      spell: `(layer, direction, short name) -> name`.
      like: groups of arrays whose names are taken instead, and more by
      as_before: `(arrays, group) -> arrays`.
    """
    if like is not None and [*map(len, like)] != [*map(len, whole)]:
        raise ValueError(
            "like: expected as many layers and directions as params have, "
            f"{[*map(len, whole)]}, got {[*map(len, like)]}"
        )
    named = {}
    for k, layer in enumerate(whole):
        for d, part in enumerate(layer):
            of_cell = theirs(part)
            if like is None or as_before is None:
                named |= {spell(k, d, short): a for short, a in of_cell.items()}
                continue
            group = like[k][d]
            of_cell = as_before(of_cell, group)
            if set(of_cell) != set(group.named):
                names = ", ".join(sorted(of_cell))
                raise ValueError(
                    f"like: expected {names} of a cell, got {', '.join(group.named)}"
                )
            again = {group.full[short]: a for short, a in of_cell.items()}
            if twice := sorted(named.keys() & again.keys()):
                raise ValueError(f"like: {twice[0]} is the name of more than one array")
            named |= again
    return on_host(named)
