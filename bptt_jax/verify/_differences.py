"""Derivatives from values alone: fourth-order central differences along directions.

A complex number is two real ones, along which differences are taken.

With d(s) = (f(θ + s v) - f(θ - s v)) / 2s,

    (1)  f'(θ) v = (4 d(s) - d(2s)) / 3 + O(s⁴)
    (2)  d(s) - d(2s) = O(s²) where f is smooth: where it is not, there is a kink (relu)
         between the four points and (1) means nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from bptt_jax._files import joined

STEP = 3e-4
SMOOTH = 1e-4
PER_LEAF = 8


def directions(rng: np.random.Generator, sizes: list[int]) -> list[np.ndarray]:
    """For each leaf unit vectors `[n, size]`: all axes of a small one, else random ones."""
    made = []
    for size in sizes:
        v = np.eye(size) if size <= PER_LEAF else rng.normal(size=(PER_LEAF, size))
        made.append(v / np.linalg.norm(v, axis=-1, keepdims=True))
    return made


def along(f: Callable, theta: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The derivative of f along each row of v; NaN where f is not smooth.

    Args:
      f: `thetas [N, n] -> values [N]`.
      theta: `[n]`.
      v: `[M, n]`.
    """
    steps = STEP * np.array([1, -1, 2, -2])
    points = theta + steps[:, None, None] * v
    f1, f_1, f2, f_2 = f(points.reshape(-1, v.shape[-1])).reshape(4, -1)
    near, far = (f1 - f_1) / (2 * STEP), (f2 - f_2) / (4 * STEP)
    scale = np.maximum(np.abs(near), np.abs(far)).max(initial=0.0)
    kinked = np.abs(near - far) > SMOOTH * max(1.0, scale)  # (2)
    return np.where(kinked, np.nan, (4 * near - far) / 3)  # (1)


def as_reals(a: Any) -> np.ndarray:
    """All numbers in a row; of complex ones the real parts, then the imaginary ones."""
    parts = [a.real, a.imag] if np.iscomplexobj(a) else [a]
    return np.concatenate([np.ravel(part) for part in parts])


def from_reals(flat: Any, like: np.ndarray):
    """The inverse of `as_reals`."""
    if np.iscomplexobj(like):
        join: Callable = lax.complex if isinstance(flat, jax.Array) else joined
        flat = join(flat[: like.size], flat[like.size :])
    return flat.reshape(like.shape)
