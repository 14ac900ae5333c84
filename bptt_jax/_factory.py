"""Factories of static records: equal arguments give the same object.

Cells, layers and models are static arguments of compiled functions. Were a factory to
build a new closure at each call, everything above it would be traced again.
"""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def factory(build: Callable[P, R]) -> Callable[P, R]:
    """Caches `build` by its arguments, however they are spelled; a list is a tuple.

    Raises:
      TypeError: an argument is not hashable (arrays are arguments of the functions of
        a record, never of its factory).
    """
    signature = inspect.signature(build)
    made: dict = {}

    @functools.wraps(build)
    def cached(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            value = bound.arguments[name] = _frozen(value)
            try:
                hash(value)
            except TypeError:
                raise TypeError(
                    f"{build.__name__}: {name} must be hashable (a number, a function, "
                    f"a cell, …), got {type(value).__name__}; arrays belong in params"
                ) from None
        kinds = tuple(map(type, bound.args)) + tuple(map(type, bound.kwargs.values()))
        key = (bound.args, tuple(sorted(bound.kwargs.items())), kinds)
        if key not in made:
            made[key] = build(*bound.args, **bound.kwargs)
        return made[key]

    return cached


def _frozen(value: object) -> object:
    """Lists as tuples, also in tuples; records, which are tuples, as they are."""
    if isinstance(value, list) or type(value) is tuple:
        return tuple(map(_frozen, value))
    return value


def expect(kind: type, **given: object) -> None:
    """Refuses arguments that are no records of a kind, `expect(Cell, cell=cell)`."""
    for name, value in given.items():
        if not isinstance(value, kind):
            what = getattr(value, "__name__", type(value).__name__)
            raise TypeError(f"{name}: expected a record {kind.__name__}, got {what}")


def positive(**sizes: int) -> None:
    """Refuses sizes that are not whole numbers of at least one."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(
                f"{name} must be a whole number of at least 1, got {size!r}"
            )
