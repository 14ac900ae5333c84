"""What a sweep runs: a table of configurations, one a row."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bptt_jax._factory import expect, is_whole, plain


class Space(NamedTuple):
    """Configurations, one a row.

    columns: name -> a value for each row.
    static: names of columns whose values are no arrays (a cell, a hidden size): for each
        of their combinations a program of its own is compiled. The other columns are
        numbers, which are arguments of the programs.
    """

    columns: dict[str, list]
    static: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        return len(next(iter(self.columns.values())))

    def row(self, i: int) -> dict[str, Any]:
        return {name: values[i] for name, values in self.columns.items()}


def grid(**values: Iterable | Any) -> Space:
    """All combinations; the last name changes fastest.

    Args:
      values: name -> numbers, or one number.

    >>> from bptt_jax import sweep
    >>> sweep.grid(lr=[0.1, 0.01], seed=range(2)).columns
    {'lr': [0.1, 0.1, 0.01, 0.01], 'seed': [0, 1, 0, 1]}
    """
    return _checked(_combined({k: _numbers(k, v) for k, v in values.items()}))


def static(**values: Iterable | Any) -> Space:
    """All combinations of choices that are no arrays; each is compiled for.

    Args:
      values: name -> a list (or tuple, or range) of anything hashable, or one thing.

    >>> from bptt_jax import cells, sweep
    >>> space = sweep.product(sweep.static(cell=[cells.lstm, cells.gru]),
    ...                       sweep.grid(lr=[0.1, 0.01, 0.001]))
    >>> space.size
    6
    """
    listed = {
        k: [plain(x) for x in (v if isinstance(v, list | tuple | range) else [v])]
        for k, v in values.items()
    }
    space = _combined(listed)
    return _checked(space._replace(static=frozenset(listed)))


def zip(*spaces: Space, **values: Iterable) -> Space:
    """Columns side by side, all of one length.

    >>> from bptt_jax import sweep
    >>> sweep.zip(lr=[0.1, 0.01], clip=[1.0, 5.0]).columns
    {'lr': [0.1, 0.01], 'clip': [1.0, 5.0]}
    """
    more = Space({k: _numbers(k, v) for k, v in values.items()})
    spaces = (*spaces, more) if values else spaces
    _distinct(spaces)
    columns = {k: v for space in spaces for k, v in space.columns.items()}
    return _checked(Space(columns, frozenset().union(*(s.static for s in spaces))))


def product(*spaces: Space) -> Space:
    """Each row of one with each row of the others; the last space changes fastest.

    >>> from bptt_jax import sweep
    >>> sweep.product(sweep.zip(a=[1, 2], b=[3, 4]), sweep.grid(seed=range(3))).size
    6
    """
    _distinct(spaces)
    rows = [
        {k: v for row in each for k, v in row.items()}
        for each in itertools.product(
            *([s.row(i) for i in range(s.size)] for s in spaces)
        )
    ]
    names = [name for space in spaces for name in space.columns]
    columns = {name: [row[name] for row in rows] for name in names}
    return _checked(Space(columns, frozenset().union(*(s.static for s in spaces))))


def random(n: int, key: Array, /, **values: Callable | Any) -> Space:
    """n configurations drawn at random.

    Args:
      n: how many.
      key: PRNG key.
      values: name -> a distribution `(key, n) -> values` (`uniform`, `log_uniform`,
        `integers`, `choice`), or a number.

    >>> import jax
    >>> from bptt_jax import sweep
    >>> space = sweep.random(5, jax.random.key(0), lr=sweep.log_uniform(1e-4, 1e-1))
    >>> space.size, all(1e-4 <= lr < 1e-1 for lr in space.columns["lr"])
    (5, True)
    """
    if not is_whole(n) or n < 1:
        raise ValueError(f"n: expected a number of configurations, got {n!r}")
    n, keys = plain(n), jax.random.split(key, len(values))
    columns = {
        name: _numbers(name, value(k, n) if callable(value) else [value] * n)
        for k, (name, value) in _zip(keys, values.items())
    }
    return _checked(Space(columns))


def uniform(low: float, high: float) -> Callable:
    """Real numbers in [low, high)."""
    _ordered(low, high)
    return lambda key, n: jax.random.uniform(key, (n,), minval=low, maxval=high)


def log_uniform(low: float, high: float) -> Callable:
    """Positive real numbers whose logarithm is uniform in [log low, log high)."""
    if not low > 0:
        raise ValueError(f"low: expected a positive number, got {low!r}")
    _ordered(low, high)

    def draw(key, n):
        u = np.asarray(jax.random.uniform(key, (n,)), np.float64)
        return low * (high / low) ** u

    return draw


def integers(low: int, high: int) -> Callable:
    """Whole numbers in [low, high)."""
    _ordered(low, high)
    return lambda key, n: jax.random.randint(key, (n,), low, high, jnp.int32)


def choice(values: Iterable) -> Callable:
    """One of the numbers given, each as likely."""
    values = np.asarray(list(values))
    return lambda key, n: jax.random.choice(key, values, (n,))


def _ordered(low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"high: expected more than low = {low!r}, got {high!r}")


_zip = itertools.zip_longest  # `zip` is this module's own


def _numbers(name: str, values: Iterable | Any) -> list:
    """Python numbers, as a table has them."""
    values = values if np.iterable(values) else [values]
    listed = np.asarray(list(values)).tolist()
    for value in listed:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(
                f"{name}: expected numbers, got {value!r}; choices that are no numbers "
                "go into sweep.static"
            )
        if not np.isfinite(value):
            raise ValueError(f"{name}: expected finite numbers, got {value!r}")
    return listed


def _combined(columns: dict[str, list]) -> Space:
    rows = list(itertools.product(*columns.values()))
    return Space({name: [row[i] for row in rows] for i, name in enumerate(columns)})


def _distinct(spaces: tuple[Space, ...]) -> None:
    names = [name for space in spaces for name in space.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)}: a column of more than one space")


def _checked(space: Space) -> Space:
    if not space.columns:
        raise ValueError("space: expected at least one column, got none")
    sizes = {name: len(values) for name, values in space.columns.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"space: expected columns of one length, got {sizes}")
    if not space.size:
        raise ValueError("space: expected at least one configuration, got none")
    for name in space.columns:
        if name in RESERVED:
            raise ValueError(f"{name}: a column of the results has this name")
    return space


RESERVED = ("config", "step", "loss", "diverged_at", "rung", "hardware", "error")
"""Columns of the table of results that are no choice of the user."""


def groups(space: Space) -> list[tuple[dict[str, Any], list[int]]]:
    """For each combination of static choices, in order, it and its rows."""
    expect(Space, space=space)
    found: list[tuple[dict[str, Any], list[int]]] = []
    for i in range(space.size):
        choice = {k: v for k, v in space.row(i).items() if k in space.static}
        for there, rows in found:
            if there == choice:
                rows.append(i)
                break
        else:
            found.append((choice, [i]))
    return found
