"""A softmax over what is there."""

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import _pytrees as trees


def softmax(scores: Array, there: Array | None, axis: int) -> Array:
    """In at least float32, and in the dtype of the scores; zero where nothing is there.

    Args:
      scores: any shape.
      there: bool, of a shape that goes with it; None: all is.
      axis: over which it sums up to one, or to zero where nothing is there.
    """
    wide = trees.widened(scores)
    if there is None:
        return jax.nn.softmax(wide, axis).astype(scores.dtype)
    least = jnp.full((), jnp.finfo(wide.dtype).min, wide.dtype)
    found = jax.nn.softmax(jnp.where(there, wide, least), axis)
    return jnp.where(there, found, jnp.zeros_like(found)).astype(scores.dtype)
