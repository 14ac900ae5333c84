"""Elementary functions as LLVM code: inline, without branches, any vector width.

Each function takes a builder and a value, float or double or a vector of these, and emits code
whose result has the value's type. Results depend on nothing but the value: not on the width, the
place in the vector or what surrounds the code, since no flag lets LLVM reorder or contract, and
a multiplication is fused with an addition only where `llvm.fma` says so. NaN comes through.
Subnormal numbers are right, in operands and results, unless the thread flushes them (XLA does):
then they count as zero.

Forms and errors of the fits are written at the coefficients, which `benchmarks/fits.py` makes;
what evaluation adds is rounding. The largest errors that were measured, in ulp, are the table of
`tests/native/test_functions.py`. Sine and cosine are not here: a result that is right for all
finite numbers takes a reduction by hundreds of bits of 2/π.
"""

import dataclasses
import math
import struct
from collections.abc import Callable
from typing import Any

from llvmlite import ir

Emit = Callable[[ir.IRBuilder, ir.Value], ir.Value]

# fits: begin, written by `python -m benchmarks.fits`
COEFFICIENTS: dict[str, tuple[float, ...]] = {
    # log₂ e
    "log2e_32": (1.442695,),
    # ln 2, and what rounding leaves of it
    "ln2_32": (
        0.6931472,
        -1.9046542e-09,
    ),
    # 2^(-1/3), 2^(-2/3)
    "roots_32": (
        0.7937005,
        0.62996054,
    ),
    # log₂ e
    "log2e_64": (1.4426950408889634,),
    # ln 2, and what rounding leaves of it
    "ln2_64": (
        0.6931471805599453,
        2.3190468138462996e-17,
    ),
    # 2^(-1/3), 2^(-2/3)
    "roots_64": (
        0.7937005259840998,
        0.6299605249474366,
    ),
    # tanh(x) = 2 t / (1 + t²), 2 t = x P(x²) / Q(x²), [0, 9.2]: 0.14 × 2^-24
    "tanh_p_32": (
        1.86,
        0.055371,
        0.00021232851,
    ),
    # and Q
    "tanh_q_32": (
        1.86,
        0.21037094,
        0.0022433072,
        2.282017e-06,
    ),
    # expm1(r) = r + r² P(r), [-0.34661, 0.34661]: 0.28 × 2^-24
    "expm1_p_32": (
        0.49999997,
        0.16666543,
        0.0416672,
        0.0083665205,
        0.0013882531,
    ),
    # 2^r = 1 + r P(r), [-0.5, 0.5]: 0.27 × 2^-24
    "exp2_p_32": (
        0.6931472,
        0.24022648,
        0.055503324,
        0.009618437,
        0.0013398874,
        0.00015353365,
    ),
    # expm1(r) = r + r² P(r), [-0.34661, 0.34661]: 0.31 × 2^-53
    "expm1_p_64": (
        0.5000000000000006,
        0.16666666666666588,
        0.04166666666657676,
        0.008333333333389495,
        0.0013888888931563816,
        0.00019841269719146786,
        2.480150527557696e-05,
        2.755740741189696e-06,
        2.7626037083944325e-07,
        2.5053816664096232e-08,
    ),
    # 2^r = 1 + r P(r), [-0.5, 0.5]: 0.25 × 2^-53
    "exp2_p_64": (
        0.6931471805599453,
        0.2402265069591013,
        0.055504108664820084,
        0.009618129107594122,
        0.001333355814677474,
        0.00015403530457108885,
        1.5252733493021979e-05,
        1.3215435283933465e-06,
        1.0178199613129043e-07,
        7.0737829670346495e-09,
        4.4347654445445993e-10,
    ),
    # log1p(f) = f + f² P(f), [-0.29289, 0.41421]: 0.57 × 2^-24
    "log1p_p_32": (
        -0.4999999,
        0.3333395,
        -0.25001755,
        0.19962071,
        -0.16570516,
        0.1491798,
        -0.14307474,
        0.08734778,
    ),
    # log1p(f) = 2 s + s³ P(s²), s = f / (2 + f), [0, 0.17157]: 0.011 × 2^-53
    "log1p_p_64": (
        0.6666666666666734,
        0.3999999999941704,
        0.2857142874189364,
        0.22222198621569256,
        0.18183561905872467,
        0.1531411046585968,
        0.14795367503019186,
    ),
    # erf(x) = x P(x²) / Q(x²), [0, 1]: 0.041 × 2^-24
    "erf_p_32": (
        1.952096,
        0.19646502,
        0.058135707,
    ),
    # and Q
    "erf_q_32": (
        1.73,
        0.7507793,
        0.12878111,
        0.009040088,
    ),
    # erf(x) = 1 - exp(-x²) P(x) / Q(x), [1, 4]: 0.0069 × 2^-24
    "erfc_p_32": (
        1.0010166,
        0.76129866,
        0.24592505,
    ),
    # and Q
    "erfc_q_32": (
        1.0,
        1.8962299,
        1.3658789,
        0.43461117,
    ),
    # erf(x) = x P(x²) / Q(x²), [0, 1]: 0.13 × 2^-53
    "erf_p_64": (
        1.1283791670955126,
        0.14350665646867083,
        0.04548361248860147,
        0.001877410984804214,
        0.00019688473143323858,
        7.771740014307882e-08,
    ),
    # and Q
    "erf_q_64": (
        1.0,
        0.4605127962775688,
        0.09381306748010668,
        0.010693078840134542,
        0.0006924981724487665,
        2.0810255587254488e-05,
    ),
    # erf(x) = 1 - exp(-x²) P(x) / Q(x), [1, 6]: 0.012 × 2^-53
    "erfc_p_64": (
        0.9999998890630073,
        1.3901089071131025,
        0.9489384783200171,
        0.3732515944286136,
        0.08423813738610265,
        0.008913674515881655,
    ),
    # and Q
    "erfc_q_64": (
        1.0,
        2.518486903840932,
        2.790752520760739,
        1.7560256020648293,
        0.6695305822753463,
        0.14930428216977756,
        0.015799200054726573,
    ),
    # 1 / cbrt(m) = P(m), improved by Newton's iteration, [1, 2]: 3.0e+4 × 2^-24
    "rcbrt_p_32": (
        1.3881563,
        -0.48332182,
        0.09339773,
    ),
    # 1 / cbrt(m) = P(m), improved by Newton's iteration, [1, 2]: 2.3e+12 × 2^-53
    "rcbrt_p_64": (
        1.541887030297069,
        -0.8099605061994959,
        0.3177573346793022,
        -0.049936964514295794,
    ),
}
# fits: end


@dataclasses.dataclass(frozen=True)
class _Format:
    """Of a floating-point type: bits, of these in the fraction, exponent of one."""

    real: ir.Type
    bits: int
    fraction: int
    bias: int
    letter: str

    @property
    def whole(self) -> ir.IntType:
        return ir.IntType(self.bits)

    def pattern(self, c: float) -> int:
        """The bits of a number."""
        return int.from_bytes(struct.pack(f">{self.letter}", c))


_FORMATS = (
    _Format(ir.FloatType(), 32, 23, 127, "f"),
    _Format(ir.DoubleType(), 64, 52, 1023, "d"),
)


class _Value:
    """A value in the making, real or whole: arithmetic emits code."""

    def __init__(self, b: ir.IRBuilder, value: Any, format: _Format):
        self.b, self.value, self.format = b, value, format

    def with_(self, value) -> "_Value":
        return _Value(self.b, value, self.format)

    def like(self, element: ir.Type) -> ir.Type:
        """The type of as many `element`s as this has."""
        type = self.value.type
        lanes = isinstance(type, ir.VectorType)
        return ir.VectorType(element, type.count) if lanes else element

    @property
    def real(self) -> bool:
        return self.value.type == self.like(self.format.real)

    def constant(self, c) -> "_Value":
        type = self.value.type
        lanes = isinstance(type, ir.VectorType)
        return self.with_(ir.Constant(type, [c] * type.count if lanes else c))

    def _both(self, real: str, whole: str, left, right) -> "_Value":
        left = left if isinstance(left, _Value) else self.constant(left)
        right = right if isinstance(right, _Value) else self.constant(right)
        emit = getattr(self.b, real if self.real else whole)
        return self.with_(emit(left.value, right.value))

    def __add__(self, other):
        return self._both("fadd", "add", self, other)

    def __radd__(self, other):
        return self._both("fadd", "add", other, self)

    def __sub__(self, other):
        return self._both("fsub", "sub", self, other)

    def __rsub__(self, other):
        return self._both("fsub", "sub", other, self)

    def __mul__(self, other):
        return self._both("fmul", "mul", self, other)

    def __truediv__(self, other):
        return self._both("fdiv", "udiv", self, other)

    def __rtruediv__(self, other):
        return self._both("fdiv", "udiv", other, self)

    def __and__(self, mask: int):
        return self._both("", "and_", self, mask)

    def __or__(self, mask: int):
        return self._both("", "or_", self, mask)

    def __neg__(self):
        return self.with_(self.b.fneg(self.value))

    def __lshift__(self, n: int):
        return self._both("", "shl", self, n)

    def __rshift__(self, n: int):
        """With the sign."""
        return self._both("", "ashr", self, n)

    def as_bits(self) -> "_Value":
        return self.with_(self.b.bitcast(self.value, self.like(self.format.whole)))

    def as_real(self) -> "_Value":
        return self.with_(self.b.bitcast(self.value, self.like(self.format.real)))

    def to_real(self) -> "_Value":
        return self.with_(self.b.sitofp(self.value, self.like(self.format.real)))

    def call(self, name: str, *others: "_Value") -> "_Value":
        """One of LLVM's own functions."""
        type, module = self.value.type, self.b.module
        lanes = f"v{type.count}" if isinstance(type, ir.VectorType) else ""
        full = f"llvm.{name}.{lanes}f{self.format.bits}"
        values = [self.value, *(o.value for o in others)]
        function = module.globals.get(full)
        if function is None:
            of = ir.FunctionType(type, [type] * len(values))
            function = ir.Function(module, of, full)
        return self.with_(self.b.call(function, values))

    def fma(self, factor, term) -> "_Value":
        """self · factor + term, rounded once."""
        factor = factor if isinstance(factor, _Value) else self.constant(factor)
        term = term if isinstance(term, _Value) else self.constant(term)
        return self.call("fma", factor, term)

    def magnitude(self) -> "_Value":
        return self.call("fabs")

    def with_sign_of(self, other: "_Value") -> "_Value":
        return self.call("copysign", other)

    def holds(self, relation: str, other) -> ir.Value:
        """Whether a relation holds; with NaN it does not."""
        other = other if isinstance(other, _Value) else self.constant(other)
        return self.b.fcmp_ordered(relation, self.value, other.value)

    def differs(self, other: "_Value") -> ir.Value:
        """Whether one is less; not with NaN."""
        return self.b.fcmp_ordered("!=", self.value, other.value)

    def below(self, n: int) -> ir.Value:
        return self.b.icmp_signed("<", self.value, self.constant(n).value)

    def equals(self, n: int) -> ir.Value:
        return self.b.icmp_signed("==", self.value, self.constant(n).value)

    def where(self, condition: ir.Value, other) -> "_Value":
        """self where the condition holds, elsewhere `other`."""
        other = other if isinstance(other, _Value) else self.constant(other)
        return self.with_(self.b.select(condition, self.value, other.value))

    def at_most(self, c: float) -> "_Value":
        """NaN where self is: one instruction of x86, whose second operand comes through."""
        limit = self.constant(c)
        return limit.where(limit.holds("<", self), self)

    def at_least(self, c: float) -> "_Value":
        limit = self.constant(c)
        return limit.where(limit.holds(">", self), self)

    def table(self, name: str) -> tuple[float, ...]:
        return COEFFICIENTS[f"{name}_{self.format.bits}"]

    def polynomial(self, coefficients: tuple[float, ...]) -> "_Value":
        """By Horner's rule, one fused operation a power."""
        *rest, last = coefficients
        total = self.fma(last, rest.pop())
        for c in reversed(rest):
            total = total.fma(self, c)
        return total


FUNCTIONS: dict[str, Emit] = {}
"""By the names of JAX's primitives; `round` rounds halves away from zero."""


def _emitter(f: Callable[[_Value], _Value]) -> Emit:
    def emit(b: ir.IRBuilder, x: Any) -> ir.Value:
        element = x.type.element if isinstance(x.type, ir.VectorType) else x.type
        for format in _FORMATS:
            if element == format.real:
                return f(_Value(b, x, format)).value
        raise TypeError(f"float or double, or a vector of these, not {x.type}")

    emit.__doc__ = f.__doc__
    return emit


def _function(f: Callable[[_Value], _Value]) -> Callable[[_Value], _Value]:
    FUNCTIONS[f.__name__.strip("_")] = _emitter(f)
    return f


def _single(x: _Value) -> bool:
    return x.format.bits == 32


# exp, and what is made of it. x = n ln 2 + r with |r| ≤ ln 2 / 2. n is in the lowest bits of
# x log₂ e + 1.5 · 2^fraction, from where a shift brings it to the exponent.


def _round_off(x: _Value, more: int) -> float:
    """Added and subtracted again, it leaves a whole number, to which it adds `more`."""
    return 1.5 * 2.0**x.format.fraction + more


def _reduced(x: _Value, more: int) -> tuple[_Value, _Value, _Value]:
    """r, n, and the power of two whose biased exponent is n + `more`."""
    (log2e,), (high, low) = x.table("log2e"), x.table("ln2")
    t = x.fma(log2e, _round_off(x, more))
    n = t - _round_off(x, more)
    return n.fma(-low, n.fma(-high, x)), n, t.as_bits() << x.format.fraction


def _exp_of_rest(r: _Value) -> _Value:
    return r.polynomial((1.0, 1.0, *r.table("expm1_p")))


def _expm1_of_rest(r: _Value) -> _Value:
    return (r * r).fma(r.polynomial(r.table("expm1_p")), r)


def _halfway(x: _Value) -> int:
    """2^n may be beyond the normal numbers, 2^(n ± this) is not; the last step rounds once."""
    return 64 if _single(x) else 512


def _scaled(x: _Value, power: _Value, up: ir.Value) -> _Value:
    """x 2^n; `power` has the exponent n + 2 bias. By products, so that NaN comes through."""
    large, small = 2.0 ** _halfway(x), 2.0 ** -_halfway(x)
    halfway = x.constant(large).where(up, small)
    return x * (power - halfway.as_bits()).as_real() * halfway


def _exp_of_negative(x: _Value) -> _Value:
    """For x ≤ 0, where `halfway` is a constant."""
    x = x.at_least(-104.0 if _single(x) else -745.2)
    r, _, power = _reduced(x, x.format.bias + _halfway(x))
    return _exp_of_rest(r) * power.as_real() * 2.0 ** -_halfway(x)


@_function
def _exp(x: _Value) -> _Value:
    x = x.at_least(-104.0 if _single(x) else -745.2)
    x = x.at_most(89.0 if _single(x) else 710.0)
    r, _, power = _reduced(x, 2 * x.format.bias)
    return _scaled(_exp_of_rest(r), power, x.holds(">", 0.0))


@_function
def _exp2(x: _Value) -> _Value:
    """2^n 2^r, where r = x - n is exact."""
    x = x.at_least(-151.0 if _single(x) else -1076.0)
    x = x.at_most(129.0 if _single(x) else 1025.0)
    more = _round_off(x, 2 * x.format.bias)
    t = x + more
    r = x - (t - more)
    power = t.as_bits() << x.format.fraction
    return _scaled(r.polynomial((1.0, *r.table("exp2_p"))), power, x.holds(">", 0.0))


@_function
def _expm1(x: _Value) -> _Value:
    """2 (2^(n-1) expm1(r) + 2^(n-1) - 1/2), halves since 2^n may be too large."""
    clamped = x.at_least(-18.0 if _single(x) else -38.0)
    clamped = clamped.at_most(89.0 if _single(x) else 710.0)
    r, n, power = _reduced(clamped, x.format.bias - 1)
    near, half = _expm1_of_rest(r), power.as_real()
    far = half.fma(near, half - 0.5)
    return near.where(n.holds("==", 0.0), far + far).with_sign_of(x)


@_function
def _logistic(x: _Value) -> _Value:
    """1 / (1 + e^-|x|), or e^-|x| times that: no overflow, and small results are right."""
    e = _exp_of_negative(-x.magnitude())
    return e.where(x.holds("<", 0.0), 1.0) / (1.0 + e)


@_function
def _tanh(x: _Value) -> _Value:
    return _tanh_by_half(x) if _single(x) else _tanh_by_exp(x)


def _tanh_by_half(x: _Value) -> _Value:
    """2 t / (1 + t²) with 2 t = p / q, as c / (c + (q - p / 2)²) with c = p q.

    Where t is near 1 its errors do not count, and no rounding makes the quotient more than 1.
    """
    a = x.magnitude().at_most(9.2)
    y = a * a
    p, q = a * y.polynomial(x.table("tanh_p")), y.polynomial(x.table("tanh_q"))
    c, rest = p * q, p.fma(-0.5, q)
    return (c / rest.fma(rest, c)).with_sign_of(x)


def _tanh_by_exp(x: _Value) -> _Value:
    """m / (m + 2), m = expm1(2 |x|)."""
    a = x.magnitude()
    r, _, power = _reduced((a + a).at_most(40.0), x.format.bias)
    power = power.as_real()
    m = power.fma(_expm1_of_rest(r), power - 1.0)
    return (m / (m + 2.0)).with_sign_of(x)


# log. m 2^e with m from √½ to √2, so that e = 0 around 1.


def _split(x: _Value) -> tuple[_Value, _Value]:
    """m, and e as a whole number, of a normal x > 0."""
    bits, least = x.as_bits(), x.format.pattern(0.5**0.5)
    e = (bits - least) >> x.format.fraction
    return (bits - (e << x.format.fraction)).as_real(), e


def _log_of(f: _Value, e: _Value) -> _Value:
    """log(1 + f) + e ln 2."""
    high, low = f.table("ln2")
    if _single(f):
        rest = (f * f).fma(f.polynomial(f.table("log1p_p")), e * low)
    else:  # 2 s = f - s f
        s = f / (f + 2.0)
        z = s * s
        rest = s.fma(z.fma(z.polynomial(f.table("log1p_p")), -f), e * low)
    return e.fma(high, f + rest)


def _with_ends(result: _Value, x: _Value, zero: float) -> _Value:
    """-inf at `zero`, NaN below, +inf and NaN as they are."""
    result = result.where(x.holds("<", math.inf), x)
    result = x.constant(math.nan).where(x.holds("<", zero), result)
    return x.constant(-math.inf).where(x.holds("==", zero), result)


@_function
def _log(x: _Value) -> _Value:
    least, up = 2.0 ** (1 - x.format.bias), x.format.fraction + 1
    small = x.holds("<", least)
    m, e = _split((x * 2.0**up).where(small, x))
    e = e.to_real() - x.constant(float(up)).where(small, 0.0)
    return _with_ends(_log_of(m - 1.0, e), x, 0.0)


@_function
def _log1p(x: _Value) -> _Value:
    """Of u = 1 + x, rounded, and of what rounding left: f = (m - 1) + left / 2^e."""
    u = x + 1.0
    added = u - 1.0
    left = (1.0 - (u - added)) + (x - added)
    m, e = _split(u)
    enough = x.format.bias // 2  # beyond, nothing is left that counts
    exponent = e.where(e.below(enough), enough)
    inverse = (x.format.pattern(1.0) - (exponent << x.format.fraction)).as_real()
    result = _log_of(left.fma(inverse, m - 1.0), e.to_real()).with_sign_of(x)
    return _with_ends(result, x, -1.0)


@_function
def _sqrt(x: _Value) -> _Value:
    return x.call("sqrt")


@_function
def _rsqrt(x: _Value) -> _Value:
    return 1.0 / x.call("sqrt")


@_function
def _cbrt(x: _Value) -> _Value:
    """m r² with r = 1 / cbrt(m), and once more Newton's iteration, from the exact residual."""
    least, up = 2.0 ** (1 - x.format.bias), 24 if _single(x) else 54
    a = x.magnitude()
    small = a.holds("<", least)
    bits = (a * 2.0**up).where(small, a).as_bits()
    one, fraction = x.format.pattern(1.0), x.format.fraction
    m = ((bits & ((1 << fraction) - 1)) | one).as_real()
    # the exponent is 3 third + rest
    offset = -x.format.bias % 3
    biased = (bits >> fraction) + offset
    third = (biased * 21846) >> 16
    rest = biased - third * 3
    one_more, two_more = x.table("roots")
    r = m.polynomial(x.table("rcbrt_p"))
    first, second = rest.equals(1), rest.equals(2)
    r = r * x.constant(one_more).where(first, x.constant(two_more).where(second, 1.0))
    m = m * x.constant(2.0).where(first, x.constant(4.0).where(second, 1.0))
    for _ in range(1 if _single(x) else 2):
        r = r.fma((1.0 - m * r * (r * r)) * (1 / 3), r)
    y = m * (r * r)
    square = y * y
    cube = square * y
    error = square.fma(y, -cube) + y.fma(y, -square) * y + (cube - m)
    y = y - error * (r * r * (1 / 3))
    shift = (x.format.bias + offset) // 3
    y = y * ((third << fraction) + (one - (shift << fraction))).as_real()
    y = (y * 2.0 ** -(up // 3)).where(small, y)
    twice = x + x  # is x, or neither more nor less, where x is 0, infinite or NaN
    return y.with_sign_of(x).where(x.differs(twice), twice)


@_function
def _erf(x: _Value) -> _Value:
    """Up to 1 a rational function, then 1 - exp(-x²) times another; one division."""
    a = x.magnitude().at_most(4.0 if _single(x) else 6.0)
    y = a * a
    near = a.holds("<", 1.0)
    p = (a * y.polynomial(x.table("erf_p"))).where(
        near, a.polynomial(x.table("erfc_p"))
    )
    q = y.polynomial(x.table("erf_q")).where(near, a.polynomial(x.table("erfc_q")))
    quotient = p / q
    far = (-_exp_of_negative(-y)).fma(quotient, 1.0)
    return quotient.where(near, far).with_sign_of(x)


@_function
def _abs(x: _Value) -> _Value:
    return x.magnitude()


@_function
def _sign(x: _Value) -> _Value:
    """±1; zeros and NaN as they are."""
    one = x.constant(1.0).with_sign_of(x)
    return one.where(x.magnitude().holds(">", 0.0), x)


@_function
def _floor(x: _Value) -> _Value:
    return x.call("floor")


@_function
def _ceil(x: _Value) -> _Value:
    return x.call("ceil")


@_function
def _round(x: _Value) -> _Value:
    return x.call("round")


def _to_even(x: _Value) -> _Value:
    return x.call("roundeven")


round_to_even = _emitter(_to_even)
"""`round` as `jax.lax.RoundingMethod.TO_NEAREST_EVEN` has it."""
