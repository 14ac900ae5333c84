"""Clipping of the whole gradient."""

import jax
import jax.numpy as jnp
import optax

from bptt_jax import _pytrees as trees


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm`, in every dtype.

    Args:
      max_norm: of all leaves together; a complex number counts as two real ones.

    Returns:
      An optax transformation without a state. The norm is computed in at least float32,
      and is right where its square would leave the range, too: a gradient in float16
      with a norm of 300 is not made zero.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import train
    >>> clip = train.clip_by_global_norm(1.0)
    >>> half, _ = clip.update(jnp.full(4, 300.0, jnp.float16), clip.init(None))
    >>> half
    Array([0.5, 0.5, 0.5, 0.5], dtype=float16)
    """

    def init(params):
        del params
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        norm = trees.norm(jax.tree.leaves(updates))
        return trees.scaled(updates, max_norm / jnp.maximum(norm, max_norm)), state

    return optax.GradientTransformation(init, update)
