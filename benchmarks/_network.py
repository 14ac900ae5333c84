"""The gradient of one cell or layer of this project, by an unroll, in a dtype."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._contestants import Program
from benchmarks._contestants._contract import compiled, half_square
from benchmarks._lowering import PLAIN, Lowering


def network(
    cell,
    unroll: Callable,
    n_in: int,
    sizes: tuple[int, int],
    *,
    dtype: Any = jnp.float32,
    lowering: Lowering = PLAIN,
    precision: str | None = None,
    models: int | None = None,
) -> Program:
    """The gradient of a cell or layer by an unroll, in a dtype.

    Weights and inputs are numbers that bfloat16 has, so they are the same in each dtype.

    Args:
      cell: a cell, a layer.
      unroll: `(cell, params, carry, xs) -> (carry, ys)`.
      n_in: inputs.
      sizes: T, B.
      dtype: of all arrays.
      lowering: how the program is made.
      precision: of products, where it is not that of the backend.
      models: so many with weights of their own, under `vmap`; None: one.
    """
    B = sizes[1]
    given = _drawn(cell, n_in, sizes, models)
    params, xs = jax.tree.map(lambda a: jnp.asarray(a.astype(dtype)), given)

    def loss(params, xs):
        last, ys = unroll(cell, params, cell.init_carry(params, (B,)), xs)
        wide = [a.astype(jnp.float32) for a in jax.tree.leaves((last, ys))]
        return sum(map(half_square, wide))

    f = jax.value_and_grad(loss, (0, 1))
    f = f if models is None else jax.vmap(f, (0, None))
    with jax.default_matmul_precision(precision):
        program, seconds = compiled(f, params, xs, lowering)

    def gradients():
        value, (d_params, d_xs) = jax.tree.map(
            lambda a: np.asarray(a, np.float32), program(params, xs)
        )
        leaves = jax.tree_util.tree_leaves_with_path(d_params)
        return value, [{jax.tree_util.keystr(p): a for p, a in leaves}], d_xs

    def nothing():
        raise NotImplementedError("gradients alone are measured here")

    call = lambda: jax.block_until_ready(program(params, xs))
    used = program.memory_analysis()
    temp, host = used.temp_size_in_bytes, used.host_temp_size_in_bytes
    return Program(call, nothing, nothing, gradients, seconds, temp, host or None)


@functools.lru_cache(maxsize=1)  # of a race: to compile an initialiser takes its time
def _drawn(cell, n_in: int, sizes: tuple[int, int], models: int | None):
    @jax.jit  # on a device each operation would be compiled by itself
    def draw(key, again):
        keys = jax.random.split(key, models or 1)
        params = jax.vmap(cell.init)(keys) if models else cell.init(key)
        return params, jax.random.normal(again, (*sizes, n_in))

    drawn = jax.tree.map(np.asarray, draw(jax.random.key(0), jax.random.key(1)))
    return jax.tree.map(lambda a: a.astype(jnp.bfloat16), drawn)
