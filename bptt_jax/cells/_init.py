"""Initialisers of recurrent weights, gate by gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import _pytrees as trees

if TYPE_CHECKING:
    from jaxtyping import Inexact, PRNGKeyArray

zeros = jax.nn.initializers.zeros
_lecun_normal = jax.nn.initializers.lecun_normal()
_orthogonal = jax.nn.initializers.orthogonal()


def lecun_normal(key, shape, dtype=jnp.float32) -> Array:
    """Of no features, too, where JAX's divides by their number."""
    draw = _lecun_normal if shape[0] else zeros
    return draw(key, shape, dtype)


def orthogonal(
    key: PRNGKeyArray, shape, dtype=jnp.float32
) -> Inexact[Array, "{shape[0]} ... {shape[-1]}"]:
    """Orthogonal columns; drawn in at least float32, since QR knows no bfloat16.

    Under `vmap` one after another: XLA:CPU (JAX 0.10.2) waits for itself where several
    QR decompositions of a batch run at the same time.
    """

    @jax.custom_batching.sequential_vmap
    def draw(key):
        return _orthogonal(key, shape, trees.at_least_float32(dtype)).astype(dtype)

    return draw(key)


def fused(
    init, key: PRNGKeyArray, n_in: int, n_hidden: int, gates: int, dtype
) -> Inexact[Array, "{n_in} {gates}*{n_hidden}"]:
    """`[I, G·H]`: one draw `[I, H]` for each gate, side by side."""
    keys = jax.random.split(key, gates)
    return jnp.concatenate([init(k, (n_in, n_hidden), dtype) for k in keys], -1)


def identity(
    key: PRNGKeyArray, shape, dtype=jnp.float32
) -> Inexact[Array, "{shape[0]} {shape[1]}"]:
    """The identity as recurrent weights: IRNN (Le, Jaitly, Hinton 2015), with relu."""
    del key
    return jnp.eye(*shape, dtype=dtype)


def chrono_bias(
    key: PRNGKeyArray, n_hidden: int, t_max: int, dtype
) -> Inexact[Array, "{n_hidden}"]:
    """log U[1, t_max - 1] (Tallec, Ollivier 2018): forgetting times up to `t_max`."""
    return jnp.log(jax.random.uniform(key, (n_hidden,), dtype, 1.0, t_max - 1.0))
