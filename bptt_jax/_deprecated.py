"""Names that have changed: the old one works until a version that it names, and says so.

A warning is a `DeprecationWarning` at the line that has the old name. `gone` is the version
in which it goes away; see docs/stability.md.
"""

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def warn(old: str, new: str, *, gone: str, level: int = 1) -> None:
    """Tells who called the caller; `level` more than 1: who called that one, and so on."""
    message = f"{old} is deprecated and goes away in bptt_jax {gone}; use {new}"
    warnings.warn(message, DeprecationWarning, stacklevel=level + 2)


def function(old: str, new: Callable[P, R], *, gone: str) -> Callable[P, R]:
    """`new` under its former name, which is `old` in words: "cells.gated".

    What a factory makes by it is what the new name makes, and pickles by that.
    """

    @functools.wraps(new)
    def renamed(*args: P.args, **kwargs: P.kwargs) -> R:
        warn(old, _called(new), gone=gone)
        return new(*args, **kwargs)

    return renamed


def argument(old: str, new: str, *, gone: str) -> Callable:
    """A decorator: the keyword `old` is taken for `new`. Of a factory the outermost one.

    Raises:
      TypeError: a call has both.
    """

    def decorate(f: Callable[P, R]) -> Callable[P, R]:
        if new not in inspect.signature(f).parameters:
            raise TypeError(f"{f.__name__} has no argument {new}")

        @functools.wraps(f)
        def renamed(*args: P.args, **kwargs: P.kwargs) -> R:
            return f(*args, **_renamed(f, kwargs, old, new, gone))

        return renamed

    return decorate


def attribute(
    old: str, new: str, *, gone: str, back: Callable[[Any], Any] = lambda value: value
) -> Any:
    """In a class, a record too: reading `old` reads `new`, and what `back` makes of it."""

    def read(self):
        kind = type(self).__name__
        warn(f"{kind}.{old}", f"{kind}.{new}", gone=gone)
        return back(getattr(self, new))

    return property(read)


def field(
    old: str,
    new: str,
    *,
    gone: str,
    into: Callable[[Any, dict], Any] = lambda value, others: value,
    back: Callable[[Any], Any] = lambda value: value,
) -> Callable[[type[R]], type[R]]:
    """A decorator of a record, a NamedTuple: made, replaced and read, `old` is `new`.

    Args:
      old: the former name.
      new: the name.
      gone: the version in which `old` goes away.
      into: `(value, the other keywords) -> value`, where the new field holds another thing.
      back: the way back.

    Raises:
      TypeError: a call has both.
    """

    def decorate(kind: type[R]) -> type[R]:
        record: Any = kind
        made, replaced = record.__new__, record._replace

        @functools.wraps(made)
        def make(cls, *args, **kwargs):
            return made(cls, *args, **_renamed(kind, kwargs, old, new, gone, into))

        @functools.wraps(replaced)
        def replace(self, **kwargs):
            return replaced(self, **_renamed(kind, kwargs, old, new, gone, into))

        record.__new__, record._replace = staticmethod(make), replace
        setattr(kind, old, attribute(old, new, gone=gone, back=back))
        return kind

    return decorate


def names(
    module: str,
    moved: Mapping[str, str],
    *,
    gone: str,
    otherwise: Callable[[str], Any] | None = None,
) -> Callable[[str], Any]:
    """The `__getattr__` of a module in which names have changed.

    Args:
      module: its `__name__`.
      moved: old name -> new name, of the same module.
      gone: the version in which the old ones go away.
      otherwise: the `__getattr__` that it has without them.
    """
    room = module.removeprefix("bptt_jax.")

    def __getattr__(name: str) -> Any:
        if name in moved:
            warn(f"{room}.{name}", f"{room}.{moved[name]}", gone=gone)
            return getattr(sys.modules[module], moved[name])
        if otherwise is not None:
            return otherwise(name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__


def _renamed(
    f: Callable,
    kwargs: dict,
    old: str,
    new: str,
    gone: str,
    into: Callable[[Any, dict], Any] = lambda value, others: value,
) -> dict:
    """The keywords of a call under their new names; tells who called the caller."""
    if old not in kwargs:
        return kwargs
    if new in kwargs:
        raise TypeError(f"{f.__name__}: got {new} and its former name {old}")
    warn(f"{_called(f)}({old}=…)", f"{new}=…", gone=gone, level=2)
    others = {name: value for name, value in kwargs.items() if name != old}
    return others | {new: into(kwargs[old], others)}


def _called(f: Callable) -> str:
    """By its room and its name: `cells.lstm`."""
    rooms = f.__module__.removeprefix("bptt_jax.").split(".")
    return ".".join([r for r in rooms if not r.startswith("_")] + [f.__name__])
