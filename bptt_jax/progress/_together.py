"""Several listeners of one loop."""

import contextlib
from collections.abc import Callable

from bptt_jax.progress._protocol import Progress, silent


def together(*each: Progress) -> Progress:
    """All of them are told, in this order; a loop is interrupted if any says so.

    >>> from bptt_jax import progress
    >>> said = []
    >>> both = progress.together(progress.Progress(message=said.append), progress.silent)
    >>> both.message("hello")
    >>> said
    ['hello']
    """
    for one in each:
        if not isinstance(one, Progress):
            raise TypeError(f"together: expected Progress, got {type(one).__name__}")
    told = {
        name: _all(of)
        for name in Progress._fields
        if (of := [f for one in each if (f := getattr(one, name)) is not _usual(name)])
    }
    if "interrupted" in told:
        asked = [one.interrupted for one in each]
        told["interrupted"] = lambda: any([ask() for ask in asked])
    if "begun" in told:
        told["begun"] = _all_or_none(each)
    if "ended" in told:
        told["ended"] = _each_in_any_case([one.ended for one in each])
    return Progress(**told)


def _usual(name: str) -> Callable:
    return getattr(silent, name)


def _all(of: list[Callable]) -> Callable:
    def tell(*said):
        for one in of:
            one(*said)

    return tell


def _all_or_none(each: tuple[Progress, ...]) -> Callable:
    """Where one cannot begin, nobody else keeps a screen or a file open."""

    def tell(start):
        with contextlib.ExitStack() as begun:
            for one in each:
                one.begun(start)
                begun.callback(one.ended)
            begun.pop_all()

    return tell


def _each_in_any_case(of: list[Callable]) -> Callable:
    """One that raises does not keep the others from closing what they have opened."""

    def tell():
        with contextlib.ExitStack() as stack:
            for one in reversed(of):
                stack.callback(one)

    return tell
