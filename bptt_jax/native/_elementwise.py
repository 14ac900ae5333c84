"""What an elementwise primitive of JAX is, lane by lane.

Of LLVM's flags only `contract` (a·b + c may be rounded once): NaN and infinities come out
as they do in XLA's own code.
"""

import llvmlite.ir as ir
import numpy as np

from bptt_jax.native._functions import FUNCTIONS
from bptt_jax.native._llvm import Value, intrinsic
from bptt_jax.native._program import Unsupported
from bptt_jax.native._stages import Node

FLAGS = ("contract",)
COMPARED = dict(eq="==", ne="!=", lt="<", le="<=", gt=">", ge=">=")


def scalar(dtype) -> ir.Type:
    """The type of a lane."""
    kind = np.dtype(dtype)
    if kind == np.float32:
        return ir.FloatType()
    if kind == np.float64:
        return ir.DoubleType()
    if kind.kind in "biu":
        return ir.IntType(1 if kind == np.bool_ else 8 * kind.itemsize)
    raise Unsupported(f"numbers of {kind}")


def elementwise(b: ir.IRBuilder, node: Node, operands: list, kinds: list) -> Value:
    """The lanes of a node.

    Args:
      b: where to build.
      node: of an elementwise primitive.
      operands: their lanes.
      kinds: their dtypes.

    Raises:
      Unsupported: the primitive has no code for these dtypes.
    """
    x, kind = operands[0], np.dtype(kinds[0])
    if node.name == "select_n":
        which, *cases = operands
        if len(cases) != 2 or kind != np.bool_:
            raise Unsupported("a choice among more than two")
        return b.select(which, cases[1], cases[0])
    if node.name == "convert_element_type":
        return _converted(b, x, kind, np.dtype(node.dtype))
    if node.name == "clamp":
        low, x, high = operands
        return _min(b, _max(b, x, low), high)
    if kind.kind == "f":
        return _of_floats(b, node, operands)
    return _of_integers(b, node, operands, kind)


def _of_floats(b: ir.IRBuilder, node: Node, operands: list) -> Value:
    name, x = node.name, operands[0]
    one = ir.Constant(x.type, [1.0] * x.type.count)
    match name:
        case "add" | "add_any":
            return b.fadd(*operands, flags=FLAGS)
        case "sub":
            return b.fsub(*operands, flags=FLAGS)
        case "mul":
            return b.fmul(*operands, flags=FLAGS)
        case "div":
            return b.fdiv(*operands)
        case "neg":
            return b.fneg(x)
        case "max":
            return _max(b, *operands)
        case "min":
            return _min(b, *operands)
        case "square":
            return b.fmul(x, x, flags=FLAGS)
        case "one_minus_square":  # of JAX 0.12, exact near 1
            return b.fmul(b.fadd(one, x), b.fsub(one, x))
        case "integer_pow":
            return _power(b, x, node.data[0], one)
        case "abs":
            return intrinsic(b, "fabs", x)
        case "is_finite":
            apart = b.fsub(x, x)  # NaN where it is not
            return b.fcmp_ordered("==", apart, apart)
    if name in COMPARED:
        compare = b.fcmp_unordered if name == "ne" else b.fcmp_ordered
        return compare(COMPARED[name], *operands)
    if name in FUNCTIONS:
        return FUNCTIONS[name](b, x)
    raise Unsupported(f"the operation {name}")


def _max(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    """NaN where either is."""
    return intrinsic(b, "maximum", x, y)


def _min(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    return intrinsic(b, "minimum", x, y)


def _power(b: ir.IRBuilder, x: Value, n: int, one: Value) -> Value:
    """xⁿ by squares."""
    result, square, left = None, x, abs(n)
    while left:
        if left & 1:
            result = square if result is None else b.fmul(result, square)
        left >>= 1
        square = b.fmul(square, square) if left else square
    result = one if result is None else result
    return b.fdiv(one, result) if n < 0 else result


def _of_integers(b: ir.IRBuilder, node: Node, operands: list, kind) -> Value:
    name = node.name
    signed = kind.kind == "i"
    plain = {
        "add": b.add,
        "sub": b.sub,
        "mul": b.mul,
        "and": b.and_,
        "or": b.or_,
        "xor": b.xor,
    }
    if name in plain and (kind != np.bool_ or name in ("and", "or", "xor")):
        return plain[name](*operands)
    if name == "not":
        return b.not_(operands[0])
    if name == "neg":
        return b.neg(operands[0])
    if name in COMPARED:
        compare = b.icmp_signed if signed else b.icmp_unsigned
        return compare(COMPARED[name], *operands)
    if name in ("max", "min") and kind != np.bool_:
        return intrinsic(b, f"{'s' if signed else 'u'}{name}", *operands)
    raise Unsupported(f"the operation {name} of {kind}")


def _converted(b: ir.IRBuilder, x: Value, old: np.dtype, new: np.dtype) -> Value:
    kind = ir.VectorType(scalar(new), x.type.count)
    if old == new:
        return x
    if old.kind == "f" and new.kind == "f":
        return b.fpext(x, kind) if new.itemsize > old.itemsize else b.fptrunc(x, kind)
    if new.kind == "f":
        return b.sitofp(x, kind) if old.kind == "i" else b.uitofp(x, kind)
    if new == np.bool_ and old.kind in "iu":
        return b.icmp_unsigned("!=", x, ir.Constant(x.type, [0] * x.type.count))
    if old.kind in "biu" and new.kind in "iu":
        if new.itemsize < old.itemsize:
            return b.trunc(x, kind)
        if new.itemsize == old.itemsize and old != np.bool_:
            return x
        return b.sext(x, kind) if old.kind == "i" else b.zext(x, kind)
    raise Unsupported(
        f"numbers of {old} made {new}"
    )  # a float made whole saturates in XLA
