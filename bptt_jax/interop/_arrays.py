"""Arrays of NumPy or JAX, traced or not: gates and biases of cells."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.core import Tracer


def on_host(named: Mapping) -> dict:
    """NumPy arrays of their own; what is traced stays."""
    return {
        name: a if isinstance(a, Tracer) else np.array(a, order="C")
        for name, a in named.items()
    }


def namespace(a: Any) -> Any:
    """NumPy, or `jax.numpy`: that of the array."""
    return a.__array_namespace__()


def join(parts: list, axis: int = -1) -> Any:
    return namespace(parts[0]).concatenate(parts, axis)


def split_gates(a: Any, n: int) -> list:
    """`[..., G·H]` as G × `[..., H]`."""
    return list(namespace(a).split(a, n, -1))


def zeros_like(a: Any, shape: tuple[int, ...]) -> Any:
    return namespace(a).zeros(shape, a.dtype)


def reordered(
    a: Any, given: str, wanted: str, change: Mapping[str, Callable] = {}
) -> Any:
    """The gates of the last axis in another order, a letter each, and some changed."""
    if given == wanted and not change:
        return a
    parts = dict(zip(given, split_gates(a, len(given)), strict=True))
    return join([change.get(gate, lambda part: part)(parts[gate]) for gate in wanted])


def halves(b: Any, like: Sequence | None = None) -> tuple[Any, Any]:
    """Two biases whose sum is b, bit for bit.

    Args:
      b: the sum.
      like: two biases, kept where their sum is b. Elsewhere, and without them, the second
        is -0, which can be added to anything without changing a bit.
    """
    xp = namespace(b)
    none = xp.full_like(b, complex(-0.0, -0.0) if b.dtype.kind == "c" else -0.0)
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
    (r, z, n), (q_r, q_z, q_n) = split_gates(first, 3), split_gates(second, 3)
    return dict(b=join([r + q_r, z + q_z, n]), b_n=q_n)


def no_bias(name: str, *biases: Any) -> None:
    """Refuses to leave out a bias that is there."""
    if any(not isinstance(b, Tracer) and np.any(b) for b in biases):
        raise ValueError(f"like: {name} is not there, but the network's is not zero")
