"""Weights to and from other libraries, with no pickle; none of them is imported for it.

    torch, keras, flax, haiku, equinox     parameters by their names there
    cudnn        the flat vector of `jax.experimental.rnn`
    weights      the network that each of them reads, and the unroll that runs it
    files        safetensors

Each module has a `load_…(source) -> Network(cells, params)` and a `to_…(params)` back.
"""

from bptt_jax.interop import (
    cudnn,
    equinox,
    files,
    flax,
    haiku,
    keras,
    torch,
    weights,
)

__all__ = [
    "cudnn",
    "equinox",
    "files",
    "flax",
    "haiku",
    "keras",
    "torch",
    "weights",
]
