"""Kernels for processors that are not here: compiled for each, run where this one can."""

import re
from itertools import product

import jax
import llvmlite.binding as llvm
import pytest

from bptt_jax import cells, layers, unrolls
from bptt_jax.native import Counts, Kinds, _compiled, _step, native_step
from bptt_jax.native._machine import Machine
from support import frames, native, tiers
from support.stretches import CELLS, Made

LINUX = "x86_64-unknown-linux-gnu"
AVX512 = Machine(LINUX, "skylake-avx512", "-prefer-256-bit", 512, 32, True)
AVX2 = Machine(LINUX, "haswell", "", 256, 16, True)
AVX = Machine(LINUX, "sandybridge", "", 128, 16, False)
BASELINE = Machine(LINUX, "x86-64", "", 128, 16, False)
NEON = Machine("aarch64-unknown-linux-gnu", "neoverse-n1", "", 128, 32, True)
APPLE = Machine("arm64-apple-macosx11.0.0", "apple-m1", "", 128, 32, True)

FUSED = {  # what it multiplies and adds with, and what it must not have
    AVX512: (r"vfn?m(add|sub)\d+ps.*%zmm", r"\bfmaf?\b"),
    AVX2: (r"vfn?m(add|sub)\d+ps.*%ymm", r"%zmm|%k[0-7]\b|\bfmaf?\b"),
    NEON: (r"\bfmla\s+v\d+\.4s", r"\bb[l]?\s+_?fmaf?\b"),
    APPLE: (r"\bfmla\.4s\s+v\d+", r"\bb[l]?\s+_?fmaf?\b"),
    BASELINE: (r"\$fmaf\b", r"%ymm|%zmm"),
}


def targets() -> bool:
    """All that this LLVM has."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return True


@pytest.fixture
def on(monkeypatch):
    """`on(machine)`: what is made from here on is for that one."""

    def choose(machine: Machine) -> Machine:
        targets()
        try:
            llvm.Target.from_triple(machine.triple)
        except RuntimeError as reason:
            pytest.skip(f"this LLVM writes no such code: {reason}")
        for module in (_compiled, _step):
            monkeypatch.setattr(module, "this_machine", lambda: machine)
        _compiled.runtime_text.cache_clear()
        return machine

    yield choose
    monkeypatch.undo()
    _compiled.runtime_text.cache_clear()


def assembly(text: str, machine: Machine) -> str:
    module = _compiled.optimized(text, machine)
    return _compiled.target_machine(machine, _compiled.LEVEL).emit_assembly(module)


def case(name: str, reverse: bool, batch=(13,)) -> Made:
    return Made(CELLS[name](3, 21), batch, 3, reverse)


QUICK = (AVX2, "lstm"), (NEON, "lstm")


@pytest.mark.parametrize(
    ("machine", "name"),
    [tiers.slow(each, each in QUICK) for each in product(FUSED, ("lstm", "gru"))],
    ids=lambda a: getattr(a, "name", a),
)
def test_code_has_the_instructions_of_its_machine(on, machine, name):
    """And no others; of what all kernels call, and of a cell each way."""
    on(machine)
    has, lacks = FUSED[machine]
    text = assembly(_compiled.runtime_text(), machine)
    assert re.search(has, text)
    for reverse in (False, True):
        made = case(name, reverse)
        assert made.step.lanes == machine.bits // 32
        text += assembly(made.text, machine)
    assert not re.search(lacks, text), re.findall(lacks, text)[:3]


RUNS_AVX2 = native.X86 and native.has("avx2", "fma")


@pytest.mark.skipif(not RUNS_AVX2, reason="needs AVX2")
@pytest.mark.parametrize(
    ("name", "batch", "reverse"),
    [
        tiers.slow(each, each in (("lstm", (13,), False), ("lstm", (50,), True)))
        for each in product(CELLS, ((), (13,), (50,)), (False, True))
    ],
)
def test_code_for_avx2_is_right(on, name, batch, reverse):
    """Between guards, alone and shared out; a machine with AVX-512 runs it, too."""
    on(AVX2._replace(triple=llvm.get_default_triple()))
    made = case(name, reverse, batch)
    for pool in (None, frames.Pool(threads=3)):
        found, whole = made.run(pool=pool)
        assert made.is_right(found)
        assert whole


def test_a_step_is_written_once_for_each_machine(on):
    step = lambda w, h, x: (jax.numpy.tanh(h @ w + x), h)
    shapes = [jax.ShapeDtypeStruct(a, "float32") for a in ((4, 4), (2, 4), (2, 4))]

    def made():
        program = jax.make_jaxpr(lambda *a: step(*a))(*shapes)  # anew each time
        return native_step(program, Kinds(Counts(1, 1), 1))

    on(AVX2)
    here = made()
    assert made() is here
    on(AVX512)
    assert (here.lanes, made().lanes) == (8, 16)


def test_without_a_fused_multiply_add_there_is_no_kernel(on):
    """Each would be a call of `fmaf`: step by step is quicker then, and is what runs."""
    on(AVX)
    layer = layers.recurrent(cells.lstm(3, 23))  # of which no other test's step is kept
    with jax.numpy_dtype_promotion("standard"):
        shapes = jax.eval_shape(layer.init, jax.random.key(0))
    carry = jax.eval_shape(lambda p: layer.init_carry(p, (2,)), shapes)
    xs = jax.ShapeDtypeStruct((5, 2, 3), "float32")
    (why,) = layers.why(layer, shapes, carry, xs).values()
    assert why is not None
    assert "(sandybridge) has no fused multiply-add" in why
    by_default = jax.jit(lambda *at: unrolls.bptt(layer, *at)).lower(shapes, carry, xs)
    assert "bptt_jax_" not in by_default.as_text()
