"""Other libraries: their modules on this project's engine, each loaded on first use.

linen        `flax.linen.RNN`, changed by its import alone
nnx          `flax.nnx.RNN`, the same
"""

import importlib

__all__ = ["linen", "nnx"]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"bptt_jax.interop.{name}")
    raise AttributeError(f"module 'bptt_jax.interop' has no attribute {name!r}")
