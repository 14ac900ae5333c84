"""The cases of a check: arguments of an unroll whose gradients do not vanish."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import _pytrees as trees
from bptt_jax.types import Cell, Layer, PyTree, Sections, Side

SIDES = ("plain", "resets", "mask", "both")


class Case(NamedTuple):
    """One set of shapes; `chunks` are tried on the same arguments."""

    T: int
    batch_shape: tuple[int, ...]
    side: str
    chunks: tuple[int | None, ...]

    def label(self, chunk: int | None) -> str:
        return f"T={self.T} batch={self.batch_shape} side={self.side} chunk={chunk}"


def selected(lengths, chunks, batch_shapes, sides) -> list[Case]:
    """Few cases that have it all: each compiled one costs a third of a second.

    The longest length meets every kind of side input; the plainest and the richest
    meet every length and chunk. Batch shapes and other chunks take turns.
    """
    turns, made = itertools.count(), []
    ends = {sides[0], sides[-1]}
    for T in lengths:
        for side in sides:
            if side not in ends and T != max(lengths):
                continue
            turn = next(turns)
            fitting = [k for k in chunks if k is None or k < T] or [None]
            if side not in ends:
                fitting = [fitting[turn % len(fitting)]]
            batch_shape = tuple(batch_shapes[turn % len(batch_shapes)])
            made.append(Case(T, batch_shape, side, tuple(fitting)))
    return made


def plainest(lengths, batch_shapes) -> Case:
    """The smallest, without side inputs."""
    return Case(min(lengths), tuple(min(batch_shapes, key=math.prod)), "plain", ())


class Arguments(NamedTuple):
    """What an unroll is called with, NumPy leaves (keys: JAX), and T."""

    params: PyTree
    carry: PyTree
    xs: PyTree
    side: Side
    T: int


def arguments(
    layer: Cell | Layer | Sections, case: Case, inputs, targets, noise: float, seed: int
) -> Arguments:
    """Random arguments for a case, floating leaves in float64, complex in complex128."""
    rng = np.random.default_rng([seed, case.T, SIDES.index(case.side)])
    k_params, k_inputs, k_targets, k_side = jax.random.split(jax.random.key(seed), 4)
    params = _noisy(rng, layer.init(k_params), noise)
    carry = _noisy(rng, layer.init_carry(params, case.batch_shape), 1.0)
    xs = sequence(inputs, rng, k_inputs, case)
    side = Side(
        targets=None if targets is None else sequence(targets, rng, k_targets, case)
    )
    resets, mask = _resets_and_mask(rng, (case.T, *case.batch_shape))
    if case.side in ("resets", "both"):
        side = side._replace(resets=resets)
    if case.side in ("mask", "both"):
        xs, goals = _unreadable(mask, (xs, side.targets))
        side = side._replace(mask=mask, targets=goals)
    if case.side == "both":
        side = side._replace(keys=jax.random.split(k_side, case.T))
    return Arguments(params, carry, xs, side, case.T)


def sequence(inputs: int | Callable | None, rng, key, case: Case) -> PyTree:
    """Normal features, what a caller's function makes, or None."""
    if inputs is None:
        return None
    if callable(inputs):
        return _float64(inputs(key, case.T, case.batch_shape))
    return rng.normal(size=(case.T, *case.batch_shape, inputs))


def double(a) -> np.ndarray:
    """A floating array in float64, a complex one in complex128."""
    return np.asarray(a, np.complex128 if np.iscomplexobj(a) else np.float64)


def _float64(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda a: double(a) if trees.is_floating(a) else a, tree)


def normal(rng, like) -> np.ndarray:
    """Normal numbers of the shape of `like`: complex ones where it is complex."""
    drawn = rng.normal(size=np.shape(like))
    if jnp.issubdtype(like.dtype, jnp.complexfloating):
        return drawn + 1j * rng.normal(size=np.shape(like))
    return drawn


def _noisy(rng, tree: PyTree, noise: float) -> PyTree:
    """Zeros (biases, states) would hide wrong factors."""

    def leaf(a):
        return double(a) + noise * normal(rng, a) if trees.is_floating(a) else a

    return jax.tree.map(leaf, tree)


def _flags(rng, shape, rate: float) -> np.ndarray:
    """Random flags; of more than one, at least one is True and one False."""
    flags = rng.random(shape) < rate
    if flags.size == 1:
        return np.ones(shape, bool)
    where = rng.choice(flags.size, 2, replace=False)
    flags.flat[where] = True, False
    return flags


def _resets_and_mask(rng, shape) -> tuple[np.ndarray, np.ndarray]:
    """Random, but in the first example what must not be left to chance: the carry that
    is given counts, and a reset comes right before a padded step and right after one.
    """
    resets, mask = _flags(rng, shape, 0.3), _flags(rng, shape, 0.7)
    first = (0,) * (len(shape) - 1)
    if shape[0] >= 2:
        resets[0, *first], mask[0, *first] = False, True
    if shape[0] >= 4:
        resets[1, *first], resets[3, *first] = True, True
        mask[1, *first], mask[2, *first], mask[3, *first] = False, False, True
    return resets, mask


def _unreadable(mask, tree: PyTree) -> PyTree:
    """NaN in the padding, and of integers ones that no table has."""

    def leaf(a):
        if trees.is_floating(a):
            bad = complex(np.nan, np.nan) if np.iscomplexobj(a) else np.nan
        elif trees.is_integer(a):
            bad = np.iinfo(a.dtype).max
        else:
            return a
        real = mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim))
        return np.where(real, a, np.asarray(bad, a.dtype))

    return jax.tree.map(leaf, tree)
