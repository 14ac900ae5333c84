"""What functions compute and arrays hold, as short texts that can be compared."""

import enum
import functools
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from bptt_jax import _pytrees as trees
from bptt_jax._processes import gathered
from bptt_jax.types import PyTree


def fingerprint(function: Callable, *arguments: PyTree) -> str:
    """SHA-256 of the program that `function` is at these arguments.

    Constants that the function closes over count with all their bytes (the text of a
    jaxpr leaves them out), arguments with their shapes and dtypes alone. Names of
    variables, lines of the source and places in memory do not count, so that every
    process finds the same. Versions of JAX trace a function differently.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    structures = jax.tree.structure(arguments), jax.tree.structure(shapes)
    return _Words().digest((closed, *map(str, structures)))


def digest(tree: PyTree) -> str:
    """SHA-256 of all leaves, in order."""
    sha256 = hashlib.sha256()
    for a in jax.tree.leaves(tree):
        for part in _array(a):
            sha256.update(part)
    return sha256.hexdigest()


def shapes(tree: PyTree) -> dict[str, str]:
    """Of each leaf dtype and shape, by its place."""
    return {
        jax.tree_util.keystr(at): f"{a.dtype}{list(a.shape)}"
        for at, a in jax.tree_util.tree_leaves_with_path(tree)
    }


def changes(before: dict, now: dict, prefix: str = "") -> list[str]:
    """What two tables by name differ in, in words."""
    return [
        f"{prefix}{name} {_short(before.get(name))} (now {_short(now.get(name))})"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _array(a: Any) -> Iterator[bytes]:
    a = _on_host(jax.random.key_data(a) if trees.is_key(a) else a)
    yield f"{a.dtype}{a.shape}".encode()
    yield np.ascontiguousarray(a).tobytes()


def _on_host(a) -> np.ndarray:
    """Of an array over several processes all of it."""
    if isinstance(a, jax.Array) and not (
        a.is_fully_addressable or a.is_fully_replicated
    ):
        a = gathered(a)
    return np.asarray(a)


class _Words:
    """A program as bytes. A part that is called in many places is read once."""

    def __init__(self):
        self.known: dict[int, tuple[str, Any]] = {}

    def digest(self, what: Any) -> str:
        sha256 = hashlib.sha256()
        for part in self.of(what):
            sha256.update(part)
        return sha256.hexdigest()

    def of(self, what: Any) -> Iterator[bytes]:
        match what:
            case ClosedJaxpr() | Jaxpr():
                if id(what) not in self.known:  # kept, so that its id stays its own
                    self.known[id(what)] = self.digest(self.within(what)), what
                yield self.known[id(what)][0].encode()
            case jax.Array() | np.ndarray() | np.generic():
                yield from _array(what)
            case dict():
                yield from self.of(sorted(what.items(), key=lambda item: str(item[0])))
            case set() | frozenset():
                yield from self.of(sorted(map(self.digest, what)))
            case list() | tuple():
                yield f"{type(what).__name__}{len(what)}(".encode()
                for one in what:
                    yield from self.of(one)
                    yield b","
            case enum.Enum():
                yield str(what).encode()
            case functools.partial():
                yield from self.of((what.func, what.args, what.keywords))
            case _ if callable(what):  # those that count are traced, and there by now
                name = getattr(what, "__qualname__", type(what).__qualname__)
                yield name.encode()
            case _:
                yield re.sub(r"\b0x[0-9a-f]+", "", f"{type(what)}{what}").encode()

    def within(self, program: ClosedJaxpr | Jaxpr) -> tuple:
        """Since JAX 0.12 the two are one, which is its own `jaxpr`."""
        if not isinstance(program, ClosedJaxpr):
            return self.lines(program)
        one = program.jaxpr is program
        return self.lines(program) if one else program.jaxpr, program.consts

    def lines(self, jaxpr: Any) -> tuple:
        """Variables by the order in which they come."""
        numbers: dict[Any, int] = {}

        def name(atom):
            if isinstance(atom, Literal):
                return "literal", str(atom.aval), np.asarray(atom.val)
            return numbers.setdefault(atom, len(numbers)), str(atom.aval)

        def each(atoms):
            return tuple(map(name, atoms))

        heads = each(jaxpr.constvars), each(jaxpr.invars)
        lines = tuple(
            (eqn.primitive.name, each(eqn.invars), each(eqn.outvars), eqn.params)
            for eqn in jaxpr.eqns
        )
        return heads, lines, each(jaxpr.outvars)
