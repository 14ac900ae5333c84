"""Other libraries: their modules on this project's engine, and weights both ways.

    linen, nnx   `flax.linen.RNN` and `flax.nnx.RNN`, changed by their import alone
    torch, keras, flax, haiku, equinox     parameters by their names there
    cudnn        the flat vector of `jax.experimental.rnn`
    weights      the network that each of them reads, and the unroll that runs it
    files        safetensors: there is no pickle

Each of the modules for weights has a `load_…(source) -> Network(cells, params)` and a
`to_…(params)` back; none of the other libraries is imported for it.
"""

import importlib

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

_LAZY = ("linen", "nnx")  # they import flax

__all__ = [
    "cudnn",
    "equinox",
    "files",
    "flax",
    "haiku",
    "keras",
    "torch",
    "weights",
    *_LAZY,
]


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"bptt_jax.interop.{name}")
    raise AttributeError(f"module 'bptt_jax.interop' has no attribute {name!r}")
