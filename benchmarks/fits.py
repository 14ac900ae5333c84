"""Fits the elementary functions of native loops: the table in `bptt_jax/native/_functions.py`.

python -m benchmarks.fits            # rewrites it
python -m benchmarks.fits --check    # fails where it differs

Each fit is a minimax polynomial or rational function (Remez's exchange in 40 digits, on a grid of
Chebyshev points). Coefficients are rounded to the format one after another, and those that are not
yet rounded are fitted again, so rounding costs little of the error. The error that is written down
is that of the rounded coefficients, evaluated exactly, on a grid five times as dense; what
evaluation adds is measured by `tests/native/test_functions.py`.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable

import mpmath as mp
import numpy as np

FILE = pathlib.Path(__file__).parent.parent / "bptt_jax" / "native" / "_functions.py"
BEGIN = "# fits: begin, written by `python -m benchmarks.fits`\n"
END = "# fits: end\n"
FORMATS = {32: (24, np.float32), 64: (53, np.float64)}

mp.mp.dps = 40
Real = Callable[[mp.mpf], mp.mpf]


@dataclasses.dataclass(frozen=True)
class Fit:
    """`f(x) ≈ P(v(x)) / Q(v(x))` over [lo, hi]."""

    name: str
    bits: int
    form: str
    f: Real
    share: Real
    """What of the function an error of `f` by one is: its weight."""
    lo: mp.mpf
    hi: mp.mpf
    degrees: tuple[int, int]
    v: Real = lambda x: x
    at_zero: tuple[float | None, float | None] = (None, 1.0)
    """P(0) and Q(0), where they are given."""

    def grid(self, n: int) -> list[mp.mpf]:
        """Chebyshev points; from 0 on, of the even function's whole interval."""
        if self.lo == 0:
            return [
                self.hi * mp.sin(mp.pi / 2 * (i + mp.mpf(0.5)) / n) for i in range(n)
            ]
        mid, half = (self.lo + self.hi) / 2, (self.hi - self.lo) / 2
        return [mid - half * mp.cos(mp.pi * (i + mp.mpf(0.5)) / n) for i in range(n)]


def exp_fits(bits: int, degree: int, degree2: int) -> list[Fit]:
    half = mp.log(2) / 2 * mp.mpf("1.0001")  # a rounded quotient may lie beyond
    return [
        Fit(
            "expm1",
            bits,
            "expm1(r) = r + r² P(r)",
            lambda r: (mp.expm1(r) - r) / r**2,
            lambda r: r**2 / mp.expm1(r),
            -half,
            half,
            (degree, 0),
        ),
        Fit(
            "exp2",
            bits,
            "2^r = 1 + r P(r)",
            lambda r: (mp.mpf(2) ** r - 1) / r,
            lambda r: r / mp.mpf(2) ** r,
            mp.mpf(-0.5),
            mp.mpf(0.5),
            (degree2, 0),
        ),
    ]


def tanh_fit() -> Fit:
    """The error of 2 t / (1 + t²) is that of t times (1 - t²) / (1 + t²): none where t is 1."""
    return Fit(
        "tanh",
        32,
        "tanh(x) = 2 t / (1 + t²), 2 t = x P(x²) / Q(x²)",
        lambda x: 2 * mp.tanh(x / 2) / x,
        lambda x: x / 2 / mp.tanh(x / 2) / mp.cosh(x),
        mp.mpf(0),
        mp.mpf(9.2),
        (2, 3),
        lambda x: x**2,
        (1.86, 1.86),  # where numbers are closest: 3.8 ulp, and 5 with 1
    )


def log_fits() -> list[Fit]:
    lo, hi = mp.sqrt(0.5) - 1, mp.sqrt(2) - 1
    return [
        Fit(
            "log1p",
            32,
            "log1p(f) = f + f² P(f)",
            lambda f: (mp.log1p(f) - f) / f**2,
            lambda f: f**2 / mp.log1p(f),
            lo,
            hi,
            (7, 0),
        ),
        Fit(
            "log1p",
            64,
            "log1p(f) = 2 s + s³ P(s²), s = f / (2 + f)",
            lambda s: (2 * mp.atanh(s) - 2 * s) / s**3,
            lambda s: s**3 / (2 * mp.atanh(s)),
            mp.mpf(0),
            hi / (2 + hi),
            (6, 0),
            lambda s: s**2,
        ),
    ]


def erf_fits(bits: int, near, at_zero: float, far, limit: float) -> list[Fit]:
    return [
        Fit(
            "erf",
            bits,
            "erf(x) = x P(x²) / Q(x²)",
            lambda x: mp.erf(x) / x,
            lambda x: x / mp.erf(x),
            mp.mpf(0),
            mp.mpf(1),
            near,
            lambda x: x**2,
            (None, at_zero),
        ),
        Fit(
            "erfc",
            bits,
            "erf(x) = 1 - exp(-x²) P(x) / Q(x)",
            lambda x: mp.erfc(x) * mp.exp(x**2),
            lambda x: mp.exp(-(x**2)) / mp.erf(x),
            mp.mpf(1),
            mp.mpf(limit),
            far,
        ),
    ]


def cbrt_fit(bits: int, degree: int) -> Fit:
    third = mp.mpf(1) / 3
    return Fit(
        "rcbrt",
        bits,
        "1 / cbrt(m) = P(m), improved by Newton's iteration",
        lambda m: m**-third,
        lambda m: m**third,
        mp.mpf(1),
        mp.mpf(2),
        (degree, 0),
    )


FITS = [
    tanh_fit(),
    *exp_fits(32, 4, 5),
    *exp_fits(64, 9, 10),
    *log_fits(),
    # with this Q(0), P(0) is near a number of the format
    *erf_fits(32, (2, 3), 1.73, (2, 3), 4.0),
    *erf_fits(64, (5, 5), 1.0, (5, 6), 6.0),
    cbrt_fit(32, 2),
    cbrt_fit(64, 3),
]


def polynomial(coefficients, x):
    total = mp.mpf(0)
    for c in reversed(coefficients):
        total = total * x + c
    return total


class Points:
    """A fit's function, weight and variable over a grid."""

    def __init__(self, fit: Fit, n: int):
        grid = fit.grid(n)
        self.v = [fit.v(x) for x in grid]
        self.f = [fit.f(x) for x in grid]
        self.w = [abs(fit.share(x)) for x in grid]

    def errors(self, p, q) -> list[mp.mpf]:
        return [
            w * (polynomial(p, v) / polynomial(q, v) - f)
            for v, f, w in zip(self.v, self.f, self.w)
        ]


def solved(points: Points, reference, q, degrees, fixed):
    """P, Q and the error of equal size and changing sign at the points of reference."""
    free = [
        (side, i)
        for side in (0, 1)
        for i in range(degrees[side] + 1)
        if (side, i) not in fixed
    ]
    n = len(free)
    a, b = mp.matrix(n + 1, n + 1), mp.matrix(n + 1, 1)
    for row, k in enumerate(reference):
        v, f = points.v[k], points.f[k]
        factor = (mp.mpf(1), -f)
        for column, (side, i) in enumerate(free):
            a[row, column] = factor[side] * v**i
        a[row, n] = -((-1) ** row) * polynomial(q, v) / points.w[k]
        b[row] = -sum(factor[side] * c * v**i for (side, i), c in fixed.items())
    x = mp.lu_solve(a, b)
    both = {**fixed, **dict(zip(free, x))}
    p, q = ([both[s, i] for i in range(degrees[s] + 1)] for s in (0, 1))
    return p, q, x[n]


def alternating(errors, n: int) -> list[int]:
    """`n` points at which the error is an extremum, of changing signs."""
    peaks: list[int] = []
    for i, e in enumerate(errors):
        if peaks and (errors[peaks[-1]] > 0) == (e > 0):
            peaks[-1] = i if abs(e) > abs(errors[peaks[-1]]) else peaks[-1]
        else:
            peaks.append(i)
    size = lambda i: abs(errors[peaks[i]])
    while len(peaks) > n + 1:
        least = min(range(len(peaks) - 1), key=lambda i: max(size(i), size(i + 1)))
        del peaks[least : least + 2]
    if len(peaks) > n:
        peaks.pop(0 if size(0) < size(-1) else -1)
    return peaks


def minimax(points: Points, degrees, fixed):
    """Remez's exchange over a grid; `fixed` are coefficients by (side, power)."""
    n, free = len(points.v), sum(degrees) + 2 - len(fixed)
    angles = [mp.pi * (i + 0.5) / (free + 1) for i in range(free + 1)]
    reference = [int((1 - mp.cos(angle)) / 2 * n) for angle in angles]
    q = [mp.mpf(1)]
    for _ in range(30):
        for _ in range(8 if degrees[1] else 1):  # the error times Q is not linear
            p, q, size = solved(points, reference, q, degrees, fixed)
        errors = points.errors(p, q)
        peaks = alternating(errors, free + 1)
        if len(peaks) <= free or max(map(abs, errors)) < abs(size) * mp.mpf("1.0001"):
            break
        reference = peaks
    return p, q


def rounded(fit: Fit) -> tuple[list, list, mp.mpf]:
    """Coefficients of the format, and the error that they leave: from either end."""
    points, dense = Points(fit, 400), Points(fit, 2000)
    sides = enumerate(fit.at_zero)
    given = {(s, 0): nearest(c, fit.bits) for s, c in sides if c is not None}
    order = [(s, i) for i in range(max(fit.degrees) + 1) for s in (0, 1)]
    order = [(s, i) for s, i in order if i <= fit.degrees[s] and (s, i) not in given]
    # without 1, powers are no Chebyshev system around 0
    orders = [order[::-1]] if fit.lo < 0 < fit.hi else [order, order[::-1]]
    made = [in_turn(fit, points, given, order) for order in orders]
    return min(
        ((p, q, max(map(abs, dense.errors(p, q)))) for p, q in made),
        key=lambda each: each[2],
    )


def in_turn(fit: Fit, points: Points, given, order):
    """Coefficients rounded in this order, the rest fitted again after each."""
    fixed = dict(given)
    for side, i in order:
        fitted = minimax(points, fit.degrees, fixed)
        fixed[side, i] = nearest(fitted[side][i], fit.bits)
    return tuple([fixed[s, i] for i in range(fit.degrees[s] + 1)] for s in (0, 1))


def nearest(c, bits: int) -> mp.mpf:
    _, kind = FORMATS[bits]
    return mp.mpf(float(kind(float(c))))


def literal(c, bits: int) -> str:
    """The shortest one that the format rounds to the same number."""
    _, kind = FORMATS[bits]
    return repr(float(str(kind(float(c)))))


def entry(name: str, comment: str, values, bits: int) -> str:
    lines = "".join(f"        {literal(c, bits)},\n" for c in values)
    if len(values) == 1:
        lines = f"{lines.strip()}"
        return f'    # {comment}\n    "{name}_{bits}": ({lines}),\n'
    return f'    # {comment}\n    "{name}_{bits}": (\n{lines}    ),\n'


def number(x: mp.mpf) -> str:
    return mp.nstr(x, 5).removesuffix(".0")


def written(fit: Fit) -> str:
    p, q, error = rounded(fit)
    size = mp.nstr(error * mp.mpf(2) ** FORMATS[fit.bits][0], 2)
    unit = f"2^-{FORMATS[fit.bits][0]}"
    over = f"[{number(fit.lo)}, {number(fit.hi)}]"
    comment = f"{fit.form}, {over}: {size} × {unit}"
    text = entry(f"{fit.name}_p", comment, p, fit.bits)
    if fit.degrees[1]:
        text += entry(f"{fit.name}_q", "and Q", q, fit.bits)
    return text


def constants(bits: int) -> str:
    """log₂ e, and ln 2 and the roots of 2 in two parts each."""
    high = nearest(mp.log(2), bits)
    third = mp.mpf(2) ** (-mp.mpf(1) / 3)
    return "".join(
        entry(name, comment, values, bits)
        for name, comment, values in (
            ("log2e", "log₂ e", [1 / mp.log(2)]),
            ("ln2", "ln 2, and what rounding leaves of it", [high, mp.log(2) - high]),
            ("roots", "2^(-1/3), 2^(-2/3)", [third, third**2]),
        )
    )


def table() -> str:
    body = "".join([*map(constants, FORMATS), *map(written, FITS)])
    return f"{BEGIN}COEFFICIENTS: dict[str, tuple[float, ...]] = {{\n{body}}}\n{END}"


def main():
    text = FILE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    new = before + table() + rest.split(END)[1]
    if "--check" in sys.argv:
        if new != text:
            raise SystemExit(f"not as the fits have it: {FILE.name}")
    else:
        FILE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
