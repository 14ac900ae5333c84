"""A record from its recipe."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from bptt_jax.recipes import _names
from bptt_jax.recipes._write import FORMAT

_FORMS = ("name", "call", "partial", "record", "replaced", "dtype", "float", "complex")


def read(data: Any) -> Any:
    """What `write` wrote down, made again by the same factories.

    Raises:
      ValueError: it is of another format, names what this version does not have, or gives
        a factory what that refuses.

    >>> from bptt_jax import cells, recipes
    >>> recipes.read(recipes.write(cells.gru(3, 8))) == cells.gru(3, 8)
    True
    """
    if not isinstance(data, dict) or set(data) != {"format", "recipe"}:
        raise ValueError("expected a recipe, with its format")
    if data["format"] != FORMAT:
        raise ValueError(
            f"a recipe of format {data['format']!r}; this version reads {FORMAT}"
        )
    try:
        return _made(data["recipe"])
    except RecursionError:
        raise ValueError("a recipe that is too deep") from None


def _made(data: Any) -> Any:
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list):
        return tuple(map(_made, data))
    if not isinstance(data, dict):
        raise ValueError(f"expected a part of a recipe, got a {type(data).__name__}")
    for form in _FORMS:
        if form in data:
            return _READERS[form](data)
    raise ValueError(f"unknown part of a recipe: {', '.join(map(str, data))[:60]}")


def _known(table: dict[str, Any], name: Any) -> Any:
    if not isinstance(name, str):
        raise ValueError(f"expected a name, got a {type(name).__name__}")
    if name not in table:
        raise ValueError(f"{str(name)[:60]!r} is no name that this version knows")
    return table[name]


def _name(data: dict) -> Any:
    return _known(_names.VALUES | _names.FACTORIES, data["name"])


def _call(data: dict) -> Any:
    name = data["call"]
    made = _known(_names.FACTORIES | _names.CLOSURES, name)
    if name in _names.CLOSURES:
        made = functools.partial(_closure, name)
    return _given(made, data, name)


@functools.cache
def _closure(name: str, **options) -> Any:
    """The same function each time: a model of another one is another model."""
    return _names.CLOSURES[name](**options)


def _partial(data: dict) -> Any:
    function = _name(dict(name=data["partial"]))
    return _given(functools.partial(functools.partial, function), data, data["partial"])


def _record(data: dict) -> Any:
    kind = _known(_names.RECORDS, data["record"])
    return _given(kind, dict(options=data.get("fields", {})), data["record"])


def _replaced(data: dict) -> Any:
    of = _made(data["replaced"])
    if not hasattr(of, "_replace"):
        raise ValueError("expected a record whose fields are replaced")
    return _given(of._replace, dict(options=data.get("fields", {})), "_replace")


def _given(function: Callable, data: dict, name: str) -> Any:
    args, options = data.get("args", []), data.get("options", {})
    if not isinstance(args, list) or not isinstance(options, dict):
        raise ValueError(f"{name}: expected arguments in a list, options by name")
    args = [_made(one) for one in args]
    options = {key: _made(one) for key, one in [*options.items(), *_named(data, name)]}
    try:
        return function(*args, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


def _named(data: dict, name: str) -> list:
    """Pairs of a name and what it is of, in their order."""
    pairs = data.get("named", [])
    fits = isinstance(pairs, list) and all(
        isinstance(one, list) and len(one) == 2 and isinstance(one[0], str)
        for one in pairs
    )
    if not fits or len({one[0] for one in pairs}) < len(pairs):
        raise ValueError(f"{name}: expected pairs of a name and a part, each name once")
    return pairs


def _dtype(data: dict) -> Any:
    if data["dtype"] not in _names.DTYPES:
        raise ValueError(f"{str(data['dtype'])[:60]!r} is no type of numbers")
    return np.dtype(data["dtype"])


def _float(data: dict) -> float:
    if data["float"] not in ("nan", "inf", "-inf"):
        raise ValueError(f"{str(data['float'])[:60]!r} is no number")
    return float(data["float"])


def _complex(data: dict) -> complex:
    parts = data["complex"]
    if not isinstance(parts, list) or len(parts) != 2:
        raise ValueError("expected a real and an imaginary part")
    real, imaginary = map(_made, parts)
    if not all(isinstance(a, int | float) for a in (real, imaginary)):
        raise ValueError("expected a real and an imaginary part")
    return complex(real, imaginary)


_READERS: dict[str, Callable[[dict], Any]] = dict(
    name=_name,
    call=_call,
    partial=_partial,
    record=_record,
    replaced=_replaced,
    dtype=_dtype,
    float=_float,
    complex=_complex,
)
