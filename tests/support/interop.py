"""A network's outputs and gradients, in the names and shapes of another library."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax.interop import weights
from support.gradients import quick_jit

T, B, I, H = 7, 2, 3, 4


class Answers(NamedTuple):
    """Outputs `[T, B, O]`, and the cotangents of named weights and of inputs."""

    ys: np.ndarray
    d_named: dict
    d_xs: np.ndarray


def inputs(n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """xs and random cotangents of ys."""
    rng = np.random.default_rng(3)
    xs, d_ys = rng.normal(size=(T, B, I)), rng.normal(size=(T, B, n_out))
    return xs.astype(np.float32), d_ys.astype(np.float32)


def normal(shape, seed: int, scale: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng([seed, *shape])
    return (scale * rng.normal(size=shape)).astype(np.float32)


def random_like(named, scale: float = 0.5):
    """Normal numbers in the place of all arrays: biases, too, count."""
    leaves, structure = jax.tree.flatten(named)
    return structure.unflatten(
        [normal(np.shape(a), seed, scale) for seed, a in enumerate(leaves)]
    )


def ours(load, named, xs, d_ys) -> Answers:
    """By the hand-derived backward, through `load(named) -> Network`."""

    def loss(named, xs):
        net = load(named)
        carry = weights.init_carry(net, xs.shape[1:-1])
        ys = weights.unroll(net.cells)(net.params, carry, xs)[1]
        return (ys * d_ys).sum(), ys

    return _answers(loss, named, xs)


def theirs(apply, named, xs, d_ys) -> Answers:
    """Of `apply(named, xs) -> ys` in JAX."""

    def loss(named, xs):
        ys = apply(named, xs)
        return (ys * d_ys).sum(), ys

    return _answers(loss, named, xs)


def _answers(loss, named, xs) -> Answers:
    named, xs = jax.tree.map(jnp.asarray, (named, xs))
    gradient = quick_jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, ys), (d_named, d_xs) = gradient(named, xs)
    return Answers(np.asarray(ys), jax.tree.map(np.asarray, d_named), np.asarray(d_xs))


def distance(a: Answers, b: Answers) -> float:
    """The largest difference, in units of the largest number of its array, or of 1."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(x - y).max() / max(1, np.abs(y).max())) for x, y in pairs)


def same_bits(a, b) -> bool:
    """Whether two trees have the same names, dtypes, shapes and bits."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(
        (x.dtype, x.shape, np.asarray(x).tobytes())
        == (y.dtype, y.shape, np.asarray(y).tobytes())
        for x, y in pairs
    )
