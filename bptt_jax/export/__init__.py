"""A trained model as a file that is used without this package.

What stands between the data and the model (scales, labels, units) is inside of each file.
"""

from bptt_jax.export._onnx import onnx
from bptt_jax.export._safetensors import safetensors
from bptt_jax.export._stablehlo import exported, program, stablehlo
from bptt_jax.export._torch import torch, torch_state

__all__ = [
    "exported",
    "onnx",
    "program",
    "safetensors",
    "stablehlo",
    "torch",
    "torch_state",
]
