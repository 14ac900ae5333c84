"""Pytrees of arrays with an axis of time, and their cotangents.

In a cotangent None stands at each leaf that is not floating; flat lists hold the
floating leaves alone. (`float0`, which `jax.vjp` uses there, must not enter a scan.)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

PyTree = Any


def is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def at_least_float32(dtype: Any) -> Any:
    """The dtype that sums over many steps are kept in."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def floats(like: PyTree, d: PyTree) -> list:
    """The cotangents at the floating leaves of `like`, as a list."""
    leaves, structure = jax.tree.flatten(like)
    each = structure.flatten_up_to(d)
    return [x for x, leaf in zip(each, leaves, strict=True) if is_floating(leaf)]


def fill(like: PyTree, flat: list) -> PyTree:
    """The inverse of `floats`: `like` with `flat` at floating leaves, None elsewhere."""
    leaves, structure = jax.tree.flatten(like)
    rest = iter(flat)
    return structure.unflatten([next(rest) if is_floating(a) else None for a in leaves])


def with_float0(like: PyTree, d: PyTree) -> PyTree:
    """`d` as `jax.vjp` wants it: float0 zeros at the leaves that are not floating."""
    leaves, structure = jax.tree.flatten(like)
    each = structure.flatten_up_to(d)
    return structure.unflatten(
        [
            x if is_floating(a) else np.zeros(a.shape, jax.dtypes.float0)
            for x, a in zip(each, leaves, strict=True)
        ]
    )


def without_float0(like: PyTree, d: PyTree) -> PyTree:
    return fill(like, floats(like, d))


def pullback(f: Callable, *primals: PyTree) -> tuple[PyTree, Callable]:
    """`jax.vjp` in which None stands for the cotangent of what is not floating."""
    out, pull = jax.vjp(f, *primals)

    def back(d_out: PyTree) -> tuple:
        ds = pull(with_float0(out, d_out))
        return tuple(without_float0(p, d) for p, d in zip(primals, ds, strict=True))

    return out, back


def cast_like(like: PyTree, d: PyTree) -> PyTree:
    """Each leaf of `d` in the dtype of the leaf of `like` in its place."""
    flat = [
        x.astype(a.dtype)
        for x, a in zip(floats(like, d), floats(like, like), strict=True)
    ]
    return fill(like, flat)


def cast_floating(tree: PyTree, dtype: Any) -> PyTree:
    return jax.tree.map(lambda a: a.astype(dtype) if is_floating(a) else a, tree)


def add(a: PyTree, b: PyTree) -> PyTree:
    """The sum of two cotangents, in the dtype of the first."""
    return jax.tree.map(lambda x, y: x + y.astype(x.dtype), a, b)


def along(like: jax.Array, a: jax.Array) -> jax.Array:
    """`a`, whose axes are the first ones of `like`, with as many axes as `like` has."""
    return a.reshape(a.shape + (1,) * (like.ndim - a.ndim))


def where(flag: jax.Array, a: PyTree, b: PyTree) -> PyTree:
    """Selects by a flag whose axes are the first ones of every leaf."""

    def leaf(x, y):
        return jnp.where(along(x if jnp.ndim(x) > jnp.ndim(y) else y, flag), x, y)

    return jax.tree.map(leaf, a, b)


def only(flag: jax.Array, tree: PyTree) -> PyTree:
    """`tree` where the flag is True, zero elsewhere (keys, which have no zero, stay)."""

    def leaf(a):
        return a if is_key(a) else where(flag, a, jnp.zeros_like(a))

    return jax.tree.map(leaf, tree)


def length(*trees: PyTree) -> int:
    """The length of the first axis, which all leaves share."""
    return jax.tree.leaves(trees)[0].shape[0]


def cut(tree: PyTree, start: int, stop: int | None) -> PyTree:
    """The steps from `start` to `stop`; whole trees are not copied."""
    if start == 0 and (
        stop is None or all(a.shape[0] == stop for a in jax.tree.leaves(tree))
    ):
        return tree
    return jax.tree.map(lambda a: lax.slice_in_dim(a, start, stop), tree)


def steps_from(tree: PyTree, start: int | jax.Array, n: int) -> PyTree:
    """n steps from `start`, which may be traced."""
    return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, n), tree)


def write_steps(whole: PyTree, start: int | jax.Array, part: PyTree) -> PyTree:
    """The arrays with the steps from `start` on replaced."""
    return jax.tree.map(
        lambda a, p: lax.dynamic_update_slice_in_dim(a, p.astype(a.dtype), start, 0),
        whole,
        part,
    )


def fold(tree: PyTree, n: int) -> PyTree:
    """`[n·K, ...]` as `[n, K, ...]`."""
    return jax.tree.map(lambda a: a.reshape((n, a.shape[0] // n) + a.shape[1:]), tree)


def flat(tree: PyTree) -> PyTree:
    """`[n, K, ...]` as `[n·K, ...]`."""
    return jax.tree.map(
        lambda a: a.reshape((a.shape[0] * a.shape[1], *a.shape[2:])), tree
    )


def join(pieces: list) -> PyTree:
    """Pieces of time, one after another."""
    if len(pieces) == 1:
        return pieces[0]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)


def before(first: PyTree, nexts: PyTree) -> PyTree:
    """The carries before each step, from the first one and those after each step."""
    return jax.tree.map(lambda c, a: jnp.concatenate([c[None], a[:-1]]), first, nexts)
