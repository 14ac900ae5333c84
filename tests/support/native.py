"""Elementary functions of native loops over arrays: a loop around one, compiled."""

import contextlib
import ctypes
import functools
import platform

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

WIDTHS = (1, 4, 8, 16)
"""Of vectors; 1 is a scalar, no vector of one."""
REAL = {np.dtype(np.float32): ir.FloatType(), np.dtype(np.float64): ir.DoubleType()}
X86 = platform.machine().lower() in ("x86_64", "amd64")
_kept: list = []


@functools.cache
def machine(cpu: str = "") -> llvm.TargetMachine:
    """This one, or another of its kind."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = "" if cpu else llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu or llvm.get_host_cpu_name(), features=features, opt=3
    )


def has(*features: str) -> bool:
    """Whether this processor has such instructions."""
    return all(llvm.get_host_cpu_features().get(feature) for feature in features)


def module(f, dtype, width: int, builder=ir.IRBuilder) -> ir.Module:
    """`void over(in, out, n)`, for n a multiple of the width."""
    real, i64, pointer = REAL[np.dtype(dtype)], ir.IntType(64), ir.PointerType()
    lanes = ir.VectorType(real, width) if width > 1 else real
    made = ir.Module()
    made.triple = llvm.get_default_triple()
    of = ir.FunctionType(ir.VoidType(), [pointer, pointer, i64])
    function = ir.Function(made, of, "over")
    source, target, n = function.args
    for arg in (source, target):
        arg.add_attribute("noalias")
    names = ("entry", "body", "end")
    entry, body, end = (function.append_basic_block(name) for name in names)
    b = builder(entry)
    b.cbranch(b.icmp_signed(">", n, i64(0)), body, end)
    b.position_at_end(body)
    i = b.phi(i64)
    at = lambda p: b.gep(p, [i], source_etype=real)
    size = np.dtype(dtype).itemsize
    x = b.load(at(source), align=size, typ=lanes)
    b.store(f(b, x), at(target), align=size)
    following = b.add(i, i64(width))
    i.add_incoming(i64(0), entry)
    i.add_incoming(following, body)
    b.cbranch(b.icmp_signed("<", following, n), body, end)
    b.position_at_end(end)
    b.ret_void()
    return made


def optimized(made: ir.Module, on: llvm.TargetMachine) -> llvm.ModuleRef:
    parsed = llvm.parse_assembly(str(made))
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    passes = llvm.create_pass_builder(on, options)
    passes.getModulePassManager().run(parsed, passes)
    return parsed


def loaded(made: ir.Module, on: llvm.TargetMachine, name: str, *types):
    """A function of the module, which stays in memory."""
    engine = llvm.create_mcjit_compiler(optimized(made, on), on)
    engine.finalize_object()
    _kept.append(engine)
    return ctypes.CFUNCTYPE(None, *types)(engine.get_function_address(name))


def compiled(f, dtype, width: int, builder=ir.IRBuilder, cpu: str = ""):
    """`f` over arrays, whose size is a multiple of the width."""
    types = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    on = machine(cpu)
    code = loaded(module(f, dtype, width, builder), on, "over", *types)

    def over(x: np.ndarray) -> np.ndarray:
        assert x.dtype == dtype
        assert x.size % width == 0
        assert x.flags.c_contiguous
        out = np.empty_like(x)
        code(x.ctypes.data, out.ctypes.data, x.size)
        return out

    return over


@functools.cache
def _control():
    """Reads and writes the word that rules subnormal numbers (x86)."""
    made, pointer = ir.Module(), ir.PointerType()
    made.triple = llvm.get_default_triple()
    of = ir.FunctionType(ir.VoidType(), [pointer])
    for name in ("stmxcsr", "ldmxcsr"):
        inner = ir.Function(made, of, f"llvm.x86.sse.{name}")
        outer = ir.Function(made, of, name)
        b = ir.IRBuilder(outer.append_basic_block())
        b.call(inner, outer.args)
        b.ret_void()
    on = machine()
    return [loaded(made, on, n, ctypes.c_void_p) for n in ("stmxcsr", "ldmxcsr")]


@contextlib.contextmanager
def flushed():
    """Subnormal operands and results are zero here, as they are to XLA."""
    store, load = _control()
    before, now = ctypes.c_uint32(), ctypes.c_uint32()
    store(ctypes.addressof(before))
    now.value = before.value | 0x8040
    load(ctypes.addressof(now))
    try:
        yield
    finally:
        load(ctypes.addressof(before))
