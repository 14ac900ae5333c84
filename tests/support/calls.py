"""A native gradient by its bits, for a test's own process and others that it starts."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import cells, layers, loops, unrolls


def gradient(hidden: int = 21):
    """`() -> its bits`, a digest: of an LSTM of 13 examples, compiled when it is called."""
    layer = layers.recurrent(cells.lstm(3, hidden), loop=loops.native)
    with jax.numpy_dtype_promotion("standard"):
        shapes = jax.eval_shape(layer.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    draw = lambda shape: rng.normal(size=shape).astype(np.float32)
    params = jax.tree.map(lambda a: draw(a.shape), shapes)
    xs = draw((9, 13, 3))

    def loss(params, xs):
        carry, ys = unrolls.bptt(layer, params, layer.init_carry(params, (13,)), xs)
        return sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves((carry, ys)))

    found = jax.jit(jax.grad(loss, argnums=(0, 1)))

    def bits() -> str:
        leaves = jax.tree.leaves(found(params, xs))
        return hashlib.sha256(
            b"".join(np.asarray(a).tobytes() for a in leaves)
        ).hexdigest()

    return bits


def bits(_=None) -> str:
    """What a worker of a pool returns."""
    return gradient()()
