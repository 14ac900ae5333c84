"""Other libraries: their modules on this project's engine, each loaded on first use.

linen        `flax.linen.RNN`, changed by its import alone
nnx          `flax.nnx.RNN`, the same
"""

import importlib

_MODULES = ("linen", "nnx")

__all__ = [*_MODULES]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"bptt_jax.interop.{name}")
    raise AttributeError(f"module 'bptt_jax.interop' has no attribute {name!r}")
