"""The floor: the operations of a gradient as one large matrix product would take them.

A gradient has the forward's products three times: forward, and the cotangents of both
factors. Time that is not spent in products, and products at less than full speed, are
what lies above it.
"""

import jax
import jax.numpy as jnp

from benchmarks import _cases
from benchmarks._cases import Case

N = 1536
PRODUCT = "a large matrix product"


def product():
    """A call that multiplies two matrices [N, N]."""
    a = jax.random.normal(jax.random.key(0), (N, N))
    times = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(times(a, a))


START = "a program that computes nothing"


def start(case: Case):
    """A call with a gradient's arguments and results, each of these one of those, doubled.

    What it takes no program of JAX takes less.
    """
    leaves = jax.tree.leaves((_cases.weights(case), _cases.inputs(case)))
    leaves = [jnp.asarray(a) for a in leaves]
    program = jax.jit(lambda *leaves: [2 * a for a in leaves])
    return lambda: jax.block_until_ready(program(*leaves))


def floor(case: Case, product_ms: float) -> float:
    """Milliseconds of the gradient."""
    return product_ms * 3 * case.products() / (2 * N**3)
