"""Words for LLVM's instructions."""

from typing import Any

import llvmlite.ir as ir

Value = Any
"""An instruction's result, or a constant; llvmlite has no types for a checker to see."""

I1, I8, I32, I64 = (ir.IntType(n) for n in (1, 8, 32, 64))
PTR, VOID = ir.PointerType(), ir.VoidType()


def number(x: int) -> ir.Constant:
    return ir.Constant(I64, x)


def suffix(kind: Any) -> str:
    """As names of intrinsics have it: v16f32."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{suffix(kind.element)}"
    if isinstance(kind, ir.FloatType):
        return "f32"
    return "f64" if isinstance(kind, ir.DoubleType) else f"i{kind.width}"


def intrinsic(b: ir.IRBuilder, name: str, *operands: Value) -> Value:
    """`llvm.name` of operands of one type, which is that of the result."""
    kind = operands[0].type
    full = f"llvm.{name}.{suffix(kind)}"
    f = b.module.globals.get(full) or ir.Function(
        b.module, ir.FunctionType(kind, [kind] * len(operands)), full
    )
    return b.call(f, operands)


def splat(b: ir.IRBuilder, x: Value, lanes: int) -> Value:
    """A number in all lanes."""
    undefined = ir.Constant(ir.VectorType(x.type, lanes), ir.Undefined)
    one = b.insert_element(undefined, x, ir.Constant(ir.IntType(32), 0))
    every = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return b.shuffle_vector(one, undefined, every)


def loop(b: ir.IRBuilder, start, end, step: int, body, carried=()) -> list:
    """`for i in range(start, end, step): carried = body(i, *carried)`."""
    before = b.block
    head, inside, after = (b.function.append_basic_block() for _ in range(3))
    b.branch(head)
    b.position_at_end(head)
    i = b.phi(I64)
    i.add_incoming(start, before)
    values = []
    for a in carried:
        value = b.phi(a.type)
        value.add_incoming(a, before)
        values.append(value)
    b.cbranch(b.icmp_signed("<", i, end), inside, after)
    b.position_at_end(inside)
    new = body(i, *values) or ()
    i.add_incoming(b.add(i, number(step)), b.block)
    for value, a in zip(values, new, strict=True):
        value.add_incoming(a, b.block)
    b.branch(head)
    b.position_at_end(after)
    return values
