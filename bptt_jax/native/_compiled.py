"""From text to an address: optimised, compiled, kept on disk, registered.

A kernel's name is the hash of all that it is made of: its text (which has the numbers that the
program holds), the processor and LLVM's version; nothing of the process, for JAX's own cache of
programs stores that name. What is registered is kept until the process ends.
"""

import ctypes
import functools
import hashlib
import threading
from typing import NamedTuple

import jax
import llvmlite
import llvmlite.binding as llvm
import llvmlite.ir as ir

from bptt_jax.native import _disk
from bptt_jax.native._handler import HANDLE, handle
from bptt_jax.native._machine import Machine, this_machine
from bptt_jax.native._products import define_product, name_of

ENTRY = "entry"
"""The function that XLA calls, in each kernel's text."""

LEVEL = 2
"""How much LLVM does for fast code, of 0 to 3."""

_lock = threading.Lock()
_linked: dict[str, object] = {}  # what holds the code, until the process ends


def target(text: str) -> str:
    """The name under which XLA:CPU finds the kernel of a text.

    Args:
      text: of a module with a function `ENTRY`.
    """
    name = _name(text)
    with _lock:  # a name can be registered once
        if name not in _linked:
            library, address = link(name, _kept(name, text), _runtime(_name("")))
            jax.ffi.register_ffi_target(name, _capsule(address), platform="cpu")
            _linked[name] = library
    return name


def _name(text: str) -> str:
    described = "\n".join(
        (
            text,
            runtime_text(),
            *map(str, this_machine()),
            llvmlite.__version__,
            str(LEVEL),
        )  # fmt: skip
    )
    return "bptt_jax_" + hashlib.sha256(described.encode()).hexdigest()[:32]


def _kept(name: str, text: str) -> bytes:
    """The code of a text, from disk or for it."""
    code = _disk.read(name)
    if code is None:
        code = object_code(text, this_machine())
        _disk.write(name, code)
    return code


@functools.cache
def runtime_text() -> str:
    """What all kernels call: products, and the part of the interface that is the same."""
    module = ir.Module()
    module.triple = this_machine().triple
    for scalar in (ir.FloatType(), ir.DoubleType()):
        define_product(module, scalar, this_machine())
    return str(module) + handle(module.triple)


@functools.cache
def _runtime(name: str) -> "Library":
    return load_runtime(_kept(name, runtime_text()), f"runtime of {name}")


class Library(NamedTuple):
    """held: what keeps the code where it is.
    symbols: the addresses of what it exports.
    """

    held: object
    symbols: dict[str, int]


def load_runtime(code: bytes, name: str) -> Library:
    """The code of `runtime_text`, ready to be called by kernels."""
    symbols = (HANDLE, *map(name_of, (ir.FloatType(), ir.DoubleType())))
    builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
    for symbol in symbols:
        builder.export_symbol(symbol)
    library = builder.link(_jit(), name)
    return Library(library, {symbol: library[symbol] for symbol in symbols})


def object_code(text: str, machine: Machine) -> bytes:
    """Machine code, relocatable, of a module's text."""
    return target_machine(machine, LEVEL).emit_object(optimized(text, machine))


def optimized(text: str, machine: Machine):
    """The module of a text, as LLVM makes it for a machine."""
    module = llvm.parse_assembly(text)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=LEVEL)
    passes = llvm.create_pass_builder(target_machine(machine, LEVEL), tuning)
    passes.getModulePassManager().run(module, passes)
    return module


@functools.lru_cache(maxsize=2)
def target_machine(machine: Machine, level: int):
    """LLVM's, which writes code for a machine."""
    return llvm.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.name,
        features=machine.features,
        opt=level,
        reloc="pic",
        codemodel="jitdefault",
    )


@functools.lru_cache(maxsize=1)
def _jit():
    return llvm.create_lljit_compiler()


def link(name: str, code: bytes, runtime: Library) -> tuple[object, int]:
    """What keeps the code where it is, and the address of its `ENTRY`."""
    builder = llvm.JITLibraryBuilder().add_object_img(code)
    builder.add_current_process().export_symbol(ENTRY)
    for symbol, address in runtime.symbols.items():
        builder.import_symbol(symbol, address)
    library = builder.link(_jit(), name)
    return library, library[ENTRY]


def _capsule(address: int):
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(address, None, None)
