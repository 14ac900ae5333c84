"""Batches of streams, as a model sees them."""

import jax
import numpy as np


def batch_of(stream, position):
    item = jax.tree.map(lambda a: a[0], stream.read(position, 1))
    return jax.device_get(jax.jit(stream.batch)(item, jax.random.key(0)))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
