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
    """Caches `build` by its arguments, however they are spelled.

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
            made[key] = build(*args, **kwargs)
        return made[key]

    return cached


def positive(**sizes: int) -> None:
    """Refuses sizes that are not whole numbers of at least one."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(
                f"{name} must be a whole number of at least 1, got {size!r}"
            )
