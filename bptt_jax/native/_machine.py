"""The processor that code is made for."""

import functools
import platform
from typing import NamedTuple

import llvmlite.binding as llvm


class Machine(NamedTuple):
    """triple, name, features: as LLVM has them.

    bits: of a vector register.
    registers: how many there are.
    fused: whether a·b + c is one instruction; without it each is a call of a function.
    """

    triple: str
    name: str
    features: str
    bits: int
    registers: int
    fused: bool


@functools.lru_cache(maxsize=1)
def this_machine() -> Machine:
    """This process's processor, by LLVM's own description."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    found = llvm.get_host_cpu_features()
    features = found.flatten()
    bits, registers, fused = 128, 16, bool(found.get("fma"))
    if found.get("avx512f") and found.get("avx512vl"):
        bits, registers = 512, 32
        features += ",-prefer-256-bit"
    elif found.get("avx2") and fused:
        bits = 256
    elif platform.machine().lower() in ("aarch64", "arm64"):
        registers, fused = 32, True
    triple, name = llvm.get_default_triple(), llvm.get_host_cpu_name()
    return Machine(triple, name, features, bits, registers, fused)
