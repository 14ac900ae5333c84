"""What a layer would give back, without running it."""

import functools

import jax

from bptt_jax import _pytrees as trees
from bptt_jax.types import Layer, PyTree, Side


def outputs(layer: Layer, params, carry, xs, side: Side) -> PyTree:
    """The shapes and dtypes of a layer's outputs over all steps."""
    T = trees.length(xs)
    leaves, structure = jax.tree.flatten((params, carry, xs, side))
    n = len(jax.tree.leaves((params, carry)))
    shapes = [
        jax.ShapeDtypeStruct(a.shape if i < n else (1, *a.shape[1:]), a.dtype)
        for i, a in enumerate(leaves)
    ]
    ys = _of_one_step(layer, structure, tuple(shapes))
    return jax.tree.map(lambda y: jax.ShapeDtypeStruct((T, *y.shape[1:]), y.dtype), ys)


@functools.lru_cache(maxsize=256)
def _of_one_step(layer: Layer, structure, shapes: tuple) -> PyTree:
    return jax.eval_shape(layer.fwd, *structure.unflatten(shapes))[1]
