"""A record as its recipe, in values that JSON has."""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from bptt_jax._factory import plain, replaced, takes_names_in_order
from bptt_jax.recipes import _names

FORMAT = 1
MOST_LETTERS = 1000
"""Of a text: a longer one is data."""


def write(model: Any) -> dict[str, Any]:
    """How a cell, layer or model was made, in values that JSON has.

    Args:
      model: what factories of this library made, of their own options and of functions
        that are known by name: activations of `jax.nn` and `jax.numpy`, initialisers of
        `jax.nn.initializers`, objectives, hooks, loops.

    Returns:
      What `read` makes an equal one of.

    Raises:
      ValueError: something in it is one's own, which the message names: a function, an
        array, a record that no factory made.

    >>> from bptt_jax import cells, recipes
    >>> recipes.write(cells.lstm(3, 8))["recipe"]
    {'call': 'cells.lstm', 'args': [3, 8]}
    """
    return dict(format=FORMAT, recipe=_written(model))


def _written(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MOST_LETTERS:
        raise ValueError(f"a text of {len(value):,} characters is not written down")
    if value is None or isinstance(value, bool | str):
        return value
    value = plain(value) if isinstance(value, np.generic) else value
    if type(value) in (int, float, complex):
        return _number(value)
    if name := _names.name_of(value):
        return dict(name=name)
    if made := getattr(value, "__dict__", {}).get("made"):
        return _call(made)
    if type(value) is functools.partial:
        return _call(value, "partial")
    if type(value) is tuple:
        return [_written(one) for one in value]
    if isinstance(value, np.dtype) and value.name in _names.DTYPES:
        return dict(dtype=value.name)
    for name, kind in _names.RECORDS.items():
        if type(value) is kind:
            fields = kind._asdict(value)
            return dict(record=name, fields=_options(fields, name))
    if closure := _names.closure_of(value):
        name, options = closure
        return dict(call=name, options=_options(options, name))
    raise ValueError(f"{_told(value)} is one's own and is not written down")


def _number(value: Any) -> Any:
    if isinstance(value, complex):
        return dict(complex=[_number(value.real), _number(value.imag)])
    if isinstance(value, float) and not math.isfinite(value):
        return dict(float=str(value))
    return value


def _call(made: functools.partial, how: str = "call") -> dict[str, Any]:
    if made.func is replaced:
        fields = _options(made.keywords, "_replace")
        return dict(replaced=_written(*made.args), fields=fields)
    name = _names.name_of(made.func)
    if name is None:
        raise ValueError(f"{_told(made.func)} is one's own and is not written down")
    found: dict[str, Any] = {how: name}
    if made.args:
        found["args"] = [_part(name, one) for one in made.args]
    named = made.keywords
    if named and takes_names_in_order(made.func):  # which JSON need not keep
        found["named"] = [[*each] for each in _options(named, name).items()]
    elif named:
        found["options"] = _options(named, name)
    return found


def _options(options: dict[str, Any], of: str) -> dict[str, Any]:
    return {name: _part(f"{of}, {name}", one) for name, one in options.items()}


def _part(where: str, value: Any) -> Any:
    try:
        return _written(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _told(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    if name is not None and callable(value) and not isinstance(value, type):
        return f"the function {name}"
    if isinstance(value, np.ndarray | jnp.ndarray):
        return f"an array {value.dtype}{list(value.shape)}"
    return f"a {type(value).__name__}"
