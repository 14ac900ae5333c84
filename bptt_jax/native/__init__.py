"""Native code from the program of a step: jaxprs to LLVM, run by XLA:CPU.

The room is entered by `native_step`, which takes a program apart (`_program`, `_plan` with
`_views`, `_stages` and `_phases`), writes it as LLVM (`_kernel`, `_elementwise`, `_functions`,
`_products`, `_handler`) and has it compiled, kept on disk and registered (`_compiled`, `_disk`).
llvmlite is loaded when somebody asks. `flat` alone, the program of a step without calls, is what
`loops.pallas` takes of it.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING

from bptt_jax.native._plan import ELEMENTWISE
from bptt_jax.native._program import (
    Constant,
    Counts,
    Equation,
    Kinds,
    Program,
    Unsupported,
    flat,
)

if TYPE_CHECKING:
    from bptt_jax.native._machine import this_machine
    from bptt_jax.native._step import NativeStep, native_step

__all__ = [
    "ELEMENTWISE",
    "Constant",
    "Counts",
    "Equation",
    "Kinds",
    "NativeStep",
    "Program",
    "Unsupported",
    "flat",
    "is_installed",
    "native_step",
    "this_machine",
]


def is_installed() -> bool:
    """Whether llvmlite is there."""
    return importlib.util.find_spec("llvmlite") is not None


LATER = dict(NativeStep="_step", native_step="_step", this_machine="_machine")
"""What loads llvmlite, and where it is."""


def __getattr__(name: str):
    if name in LATER:
        return getattr(importlib.import_module(f"bptt_jax.native.{LATER[name]}"), name)
    raise AttributeError(f"module 'bptt_jax.native' has no attribute {name!r}")
