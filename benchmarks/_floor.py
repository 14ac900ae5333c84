"""The floor: the operations of a gradient as one large matrix product would take them.

A gradient has the forward's products three times: forward, and the cotangents of both
factors. Time that is not spent in products, and products at less than full speed, are
what lies above it.
"""

import jax
import jax.numpy as jnp

from benchmarks._cases import Case

N = 1536
PRODUCT = "a large matrix product"


def product():
    """A call that multiplies two matrices [N, N]."""
    a = jax.random.normal(jax.random.key(0), (N, N))
    times = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(times(a, a))


def floor(case: Case, product_ms: float) -> float:
    """Milliseconds of the gradient."""
    return product_ms * 3 * case.products() / (2 * N**3)
