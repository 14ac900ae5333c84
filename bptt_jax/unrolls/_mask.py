"""Lengths as masks."""

import jax
import jax.numpy as jnp


def sequence_mask(seq_lengths: jax.Array, length: int) -> jax.Array:
    """`Side.mask` of sequences padded on the right: True on the first steps of each.

    Args:
      seq_lengths: integers `[...]`, steps of each sequence.
      length: T, steps of the padded array.

    Returns:
      bool `[T, ...]`.

    >>> import jax.numpy as jnp
    >>> sequence_mask(jnp.array([1, 2]), 2)
    Array([[ True,  True],
           [False,  True]], dtype=bool)
    """
    seq_lengths = jnp.asarray(seq_lengths)
    if not jnp.issubdtype(seq_lengths.dtype, jnp.integer):
        raise TypeError(f"seq_lengths: expected integers, got {seq_lengths.dtype}")
    steps = jnp.arange(length).reshape((length,) + (1,) * seq_lengths.ndim)
    seq_lengths = seq_lengths.astype(steps.dtype)  # strict promotion mixes none
    return steps < seq_lengths[None]
