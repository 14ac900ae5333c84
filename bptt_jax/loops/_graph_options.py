"""A whole gradient as one CUDA graph."""

import types
from collections.abc import Mapping

graph_options: Mapping[str, str | int | bool] = types.MappingProxyType(
    {
        "xla_gpu_enable_command_buffer": (
            "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,WHILE"
        ),
        "xla_gpu_graph_min_graph_size": 1,
        "xla_gpu_command_buffer_unroll_loops": True,
    }
)
"""Options of XLA:GPU with which a program is one CUDA graph: the host launches once.

For the outermost `jit`, `jax.jit(f, compiler_options=dict(loops.graph_options))`; an inner
`jit` may have none. Without them XLA makes each body of a loop a graph, and the host launches
one for each stretch of time and direction. They gain where launching is the limit: small
batches and small layers.

*Compiled, not run*: for an H100, with JAX 0.10.2, `unrolls.bptt` and `unrolls.scan` become one
graph, of some thousand nodes; how long it takes to make one, how much memory it has and how
fast it runs have not been measured. On other platforms they do nothing.

>>> import jax, jax.numpy as jnp
>>> from bptt_jax import cells, loops, unrolls
>>> cell = cells.lstm(3, 8)
>>> params = cell.init(jax.random.key(0))
>>> def loss(params, xs):
...     carry, hs = unrolls.bptt(cell, params, cell.init_carry(params, (2,)), xs)
...     return jnp.mean(hs**2)
>>> grad = jax.jit(jax.grad(loss), compiler_options=dict(loops.graph_options))
>>> grad(params, jnp.ones((50, 2, 3)))["w_h"].shape
(8, 32)
"""
