"""Elementary functions as machine code: errors in ulp, ends, the same bits wherever."""

import functools
import importlib.util
import math
import pathlib
import re

import jax
import mpmath
import numpy as np
import pytest
from llvmlite import ir
from scipy import special

from bptt_jax.native import _functions
from bptt_jax.native._functions import FUNCTIONS
from support import native

DTYPES = (np.float32, np.float64)
ULP = {
    "abs": (0.0, 0.0),
    "cbrt": (0.6, 0.6),
    "ceil": (0.0, 0.0),
    "erf": (2.9, 3.2),
    "exp": (1.0, 1.0),
    "exp2": (1.0, 1.0),
    "expm1": (1.6, 2.2),
    "floor": (0.0, 0.0),
    "log": (1.2, 1.0),
    "log1p": (1.8, 1.5),
    "logistic": (2.4, 2.4),
    "round": (0.0, 0.0),
    "rsqrt": (1.5, 1.5),
    "sign": (0.0, 0.0),
    "sqrt": (0.5, 0.5),
    "tanh": (3.8, 2.7),
}
"""The largest errors that were seen, rounded up: of float32 over one in seven of all numbers,
of float64 over some millions."""
EVERY = [(name, dtype) for name in FUNCTIONS for dtype in DTYPES]
every = pytest.mark.parametrize(
    ("name", "dtype"), EVERY, ids=[f"{n}-{d.__name__}" for n, d in EVERY]
)
# where a form begins or ends, a result saturates, overflows or is subnormal
BREAKS = (
    *(0.0, 0.5, 0.5**0.5, 1.0, 1.5, 2**0.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 9.2, 20.0),
    *(18.0, 18.7, 37.0, 38.0, 87.34, 88.03, 88.73, 89.0, 103.28, 103.98, 104.0),
    *(126.0, 127.0, 128.0, 129.0, 149.0, 150.0, 151.0, 708.4, 709.79, 710.0, 744.45),
    *(745.14, 745.2, 1022.0, 1023.0, 1024.0, 1025.0, 1074.0, 1075.0, 1076.0),
    *(2.0**23, 2.0**24, 2.0**52, 2.0**53, 2.0**63),
    *((n + 0.5) * math.log(2) for n in (0, 1, 2, 3, 10, 20, 25, 50)),
)


@functools.cache
def grid(dtype) -> np.ndarray:
    """Bit patterns at random, all exponents, neighbours of breaks, and where most happens."""
    rng = np.random.default_rng(0)
    info, whole = np.finfo(dtype), np.uint32 if dtype == np.float32 else np.uint64
    patterns = rng.integers(0, 2**info.bits, 2**16, whole).view(dtype)
    exponents = 2.0 ** np.arange(info.minexp - info.nmant, info.maxexp, dtype=float)
    exponents = (exponents[:, None] * rng.uniform(1, 2, 8)).astype(dtype)
    breaks = np.array([*BREAKS, info.smallest_normal, info.max], dtype)
    steps = np.arange(-32, 33).astype(whole)  # below 0 are NaN
    neighbours = (breaks.view(whole)[:, None] + steps).view(dtype)
    widest = 1.1 * max(-math.log(info.smallest_subnormal), 128)
    positive = np.concatenate([exponents.ravel(), neighbours.ravel()])
    ranges = [rng.uniform(-w, w, 2**15).astype(dtype) for w in (1, 4, 12, widest)]
    small = np.exp(rng.uniform(-20, 3, 2**15)) * rng.choice([-1, 1], 2**15)
    near_one = 1 + rng.uniform(-0.5, 0.5, 2**15)
    parts = [patterns, positive, -positive, *ranges, small, near_one]
    with np.errstate(invalid="ignore"):
        x = np.concatenate([part.astype(dtype) for part in parts])
    return np.concatenate([x, np.zeros(-x.size % 16, dtype)])


def _logistic(x):
    with np.errstate(all="ignore"):
        e = np.exp(-np.abs(x))
        return np.where(x < 0, e, 1) / (1 + e)


def _erf(x):
    """In float64 SciPy's; beyond, a series of positive terms."""
    if x.dtype == np.float64:
        return special.erf(x)
    a = np.minimum(np.abs(x), 7)
    term = total = 2 * a / np.sqrt(np.longdouble("3.14159265358979323846264338"))
    for k in range(1, 260):
        term = term * (2 * a * a / (2 * k + 1))
        total = total + term
    return np.copysign(total * np.exp(-a * a), x)


def _away_from_zero(x):
    whole = np.trunc(x)
    return np.copysign(np.abs(whole) + (np.abs(x - whole) >= 0.5), x)


WIDE = {
    "abs": np.abs,
    "cbrt": np.cbrt,
    "ceil": np.ceil,
    "erf": _erf,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "floor": np.floor,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": _logistic,
    "round": _away_from_zero,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sign": np.sign,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}
"""In numbers wider than those that are measured."""
MANY = {
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "erf": mpmath.erf,
    "exp": mpmath.exp,
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "logistic": lambda x: 1 / (1 + mpmath.exp(-x)),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "sqrt": mpmath.sqrt,
    "tanh": mpmath.tanh,
}
"""In as many digits as one likes, of finite numbers at which they are real and finite."""
EXTENDED = np.finfo(np.longdouble).nmant >= 63


def exact(name: str, x: np.ndarray) -> np.ndarray:
    wider = np.float64 if x.dtype == np.float32 else np.longdouble
    with np.errstate(all="ignore"):
        return WIDE[name](x.astype(wider)).astype(wider)


def ulps(y: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Errors of y in spacings of its format at the right result, as far as that is finite."""
    info = np.finfo(y.dtype)
    finite = np.isfinite(right) & (np.abs(right) <= info.max)
    right = np.where(finite, right, 0)
    exponent = np.maximum(np.frexp(right)[1] - 1, info.minexp) - info.nmant
    error = np.abs(y.astype(right.dtype) - right) / np.ldexp(
        np.ones_like(right), exponent
    )
    return np.where(finite, error, 0)


@functools.cache
def over_the_grid(name: str, dtype) -> np.ndarray:
    return exact(name, grid(dtype))


def measured(name: str, dtype, builder=ir.IRBuilder) -> float:
    """The largest error over the grid; an infinite one where NaN or infinity are wrong."""
    x, right = grid(dtype), over_the_grid(name, dtype)
    y = native.compiled(FUNCTIONS[name], dtype, 8, builder)(x)
    with np.errstate(over="ignore"):
        nearest = right.astype(dtype)
    same = (np.isnan(y) == np.isnan(right)) & (np.isinf(y) == np.isinf(nearest))
    with np.errstate(invalid="ignore"):
        worst = np.where(same, ulps(y, right), np.inf)
    return worst.max()


def measured_in_many_digits(name: str, dtype, every: int) -> float:
    x = grid(dtype)[::every]
    x = x[: x.size // 8 * 8].copy()
    y, right = native.compiled(FUNCTIONS[name], dtype, 8)(x), exact(name, x)
    normal = np.finfo(dtype).smallest_normal
    ok = np.isfinite(right) & (np.abs(right) >= normal) & (np.abs(right) < 1 / normal)
    worst = 0.0
    with mpmath.workprec(200):
        for a, b in zip(x[ok].tolist(), y[ok].tolist()):
            true = MANY[name](mpmath.mpf(a))
            unit = mpmath.ldexp(1, mpmath.frexp(true)[1] - np.finfo(dtype).nmant - 1)
            worst = max(worst, float(abs(mpmath.mpf(b) - true) / unit))
    return worst


def bound(name: str, dtype) -> float:
    return ULP[name][DTYPES.index(dtype)]


@every
def test_errors(name, dtype):
    if dtype == np.float64 and not EXTENDED:
        pytest.skip("long double is double here: measured in many digits alone")
    error = measured(name, dtype)
    assert max(0, bound(name, dtype) - 1) <= error <= bound(name, dtype) <= 4.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MANY)
def test_errors_in_many_digits(name, dtype):
    error = measured_in_many_digits(name, dtype, every=400)
    assert 0 < error <= bound(name, dtype) + 0.001


ENDS = {
    "abs": "-0 0, -inf inf, inf inf",
    "cbrt": "0 0, -0 -0, inf inf, -inf -inf, 8 2, -27 -3",
    "ceil": "-0 -0, -0.5 -0, 0.5 1, inf inf, -inf -inf",
    "erf": "0 0, -0 -0, inf 1, -inf -1, 7 1, -1e30 -1",
    "exp": "0 1, -0 1, inf inf, -inf 0, 710 inf, -746 0",
    "exp2": "0 1, -0 1, inf inf, -inf 0, 3 8, 1024 inf, -1080 0",
    "expm1": "0 0, -0 -0, inf inf, -inf -1, 710 inf, -50 -1",
    "floor": "-0 -0, -0.5 -1, 0.5 0, inf inf, -inf -inf",
    "log": "0 -inf, -0 -inf, 1 0, inf inf, -inf nan, -1 nan, -1e-40 nan",
    "log1p": "0 0, -0 -0, -1 -inf, inf inf, -inf nan, -2 nan",
    "logistic": "0 0.5, -0 0.5, inf 1, -inf 0, 40 1, -800 0",
    "round": "-0 -0, 0.5 1, -0.5 -1, 2.5 3, 1.4 1, inf inf, -inf -inf",
    "rsqrt": "0 inf, -0 -inf, 4 0.5, inf 0, -1 nan, -inf nan",
    "sign": "0 0, -0 -0, 3 1, -1e-40 -1, inf 1, -inf -1",
    "sqrt": "0 0, -0 -0, 4 2, inf inf, -1 nan, -inf nan",
    "tanh": "0 0, -0 -0, inf 1, -inf -1, 20 1, -1e30 -1",
}
"""Operands and results."""


def ends(name: str, dtype, width: int = 4, builder=ir.IRBuilder) -> bool:
    """Whether NaN stays NaN, whatever its bits, and the ends are as the table has them."""
    pairs = [pair.split() for pair in ENDS[name].split(", ")]
    operands, known = np.array(pairs, float).T.astype(dtype)
    bits = np.array([0, 1, 0xABCD, 5], np.uint32 if dtype == np.float32 else np.uint64)
    nan = (bits + np.array(math.nan, dtype).view(bits.dtype)).view(dtype)
    x = np.concatenate([operands, nan, -nan])
    x = np.concatenate([x, np.zeros(-x.size % width, dtype)])
    y = native.compiled(FUNCTIONS[name], dtype, width, builder)(x)
    return same(y[: known.size], known) and np.isnan(y[known.size :][:8]).all()


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bits, but for those of NaN."""
    signs = (np.signbit(a) == np.signbit(b)) | np.isnan(a)
    return np.array_equal(a, b, equal_nan=True) and bool(signs.all())


@every
def test_ends(name, dtype):
    assert all(ends(name, dtype, width) for width in native.WIDTHS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturation(dtype):
    x = grid(dtype)
    x = np.ascontiguousarray(x[~np.isnan(x)][: x.size // 32 * 16])
    of = {name: native.compiled(FUNCTIONS[name], dtype, 8)(x) for name in ULP}
    for name, limit in (("tanh", 9.2 if dtype == np.float32 else 19.1), ("erf", 6.0)):
        assert (np.abs(of[name]) <= 1).all()
        assert (np.abs(of[name][np.abs(x) > limit]) == 1).all()
        assert (np.signbit(of[name]) == np.signbit(x)).all()
    assert ((of["logistic"] >= 0) & (of["logistic"] <= 1)).all()
    assert (of["exp"] >= 0).all()
    assert (of["expm1"] >= -1).all()


def test_rounding():
    x = np.array([0.5, 1.5, 2.5, -0.5, -2.5, 0.49999997, 8388609.0, -0.0], np.float32)
    away = native.compiled(FUNCTIONS["round"], np.float32, 8)(x)
    even = native.compiled(_functions.round_to_even, np.float32, 8)(x)
    assert same(away, np.array([1, 2, 3, -1, -3, 0, 8388609, -0.0], np.float32))
    assert same(even, np.array([0, 2, 2, -0.0, -2, 0, 8388609, -0.0], np.float32))
    whole = jax.lax.round(x)  # what `round` is without parameters
    assert same(away, np.asarray(whole))


def test_names_are_those_of_primitives():
    assert all(getattr(jax.lax, f"{name}_p").name == name for name in FUNCTIONS)
    assert {*FUNCTIONS} == {*ULP} == {*ENDS} == {*WIDE}


@every
def test_bits_depend_on_nothing_else(name, dtype):
    """Not on the width, the place, or the instructions that a processor has."""
    x = np.ascontiguousarray(grid(dtype)[::9][: 2**14])
    f = FUNCTIONS[name]
    y = native.compiled(f, dtype, 8)(x)
    for width in (*native.WIDTHS, 3):
        x, y = (a[: a.size // width * width].copy() for a in (x, y))
        over = native.compiled(f, dtype, width)
        assert same(over(x), y)
        assert same(over(np.roll(x, 5)), np.roll(y, 5))
    if native.X86 and native.has("avx2", "fma"):
        assert same(native.compiled(f, dtype, 8, cpu="haswell")(x[: 2**10]), y[: 2**10])


@pytest.mark.skipif(not native.X86, reason="how to flush is known for x86 alone")
@every
def test_where_subnormal_numbers_count_as_zero(name, dtype):
    x = np.ascontiguousarray(grid(dtype)[::3])
    x = x[: x.size // 8 * 8]
    least, over = (
        np.finfo(dtype).smallest_normal,
        native.compiled(FUNCTIONS[name], dtype, 8),
    )
    kept = over(x)
    with native.flushed():
        flushed = over(x)
    small = (np.abs(x) < least) & (x != 0)
    tiny = (np.abs(kept) < 2 * least) & (kept != 0)
    assert small.any()
    normal = ~small & ~tiny
    assert same(flushed[normal], kept[normal])
    assert (np.abs(flushed[tiny & ~small]) <= 2 * least).all()
    if name in ("sign", "ceil", "floor"):  # a comparison with zero, which may see them
        return
    as_zero = over(np.where(small, np.copysign(dtype(0), x), x))
    with np.errstate(invalid="ignore"):
        near = np.abs(flushed - as_zero) <= 2 * least
    close = (flushed == as_zero) | near
    assert (close | np.isnan(as_zero))[small].all()


@pytest.mark.parametrize("type_", [ir.IntType(32), ir.HalfType()])
def test_other_types(type_):
    function = ir.Function(ir.Module(), ir.FunctionType(type_, [type_]), "f")
    b = ir.IRBuilder(function.append_basic_block())
    with pytest.raises(TypeError, match="float or double"):
        FUNCTIONS["tanh"](b, function.args[0])


def test_emitted_inline_without_branches_or_flags():
    for name, dtype in EVERY:
        text = str(native.module(FUNCTIONS[name], dtype, 8))
        assert text.count("br ") == 2, name  # those of the loop
        assert not re.search(r"\b(fast|nnan|ninf|contract|reassoc|arcp|afn)\b", text)
        called = set(re.findall(r"call .*?@\"?([\w.]+)", text))
        assert all(c.startswith("llvm.") for c in called)


# What is wrong is seen.


class Fast(ir.IRBuilder):
    """Puts LLVM's flag `fast` where a builder may."""


def _flagged(name: str):
    plain = getattr(ir.IRBuilder, name)
    return lambda self, *args: plain(self, *args, flags=("fast",))


for _name in ("fadd", "fsub", "fmul", "fdiv", "fcmp_ordered"):
    setattr(Fast, _name, _flagged(_name))


@pytest.mark.parametrize("name", ["log", "cbrt", "sign"])
def test_a_flag_that_makes_numbers_of_nan_is_seen(name):
    assert ends(name, np.float32)
    assert not ends(name, np.float32, builder=Fast)


def test_a_clamp_that_makes_numbers_of_nan_is_seen(monkeypatch):
    def at_most(x, c):
        return x.where(x.holds("<", c), c)

    monkeypatch.setattr(_functions._Value, "at_most", at_most)
    assert not ends("tanh", np.float32)
    assert not ends("exp", np.float64)


def test_a_lost_sign_of_zero_is_seen(monkeypatch):
    monkeypatch.setattr(_functions._Value, "with_sign_of", lambda x, other: x)
    assert not ends("log1p", np.float32)
    assert not ends("expm1", np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_results_that_are_wrong_are_seen(monkeypatch, dtype):
    monkeypatch.setattr(_functions, "_halfway", lambda x: 0)
    assert measured("exp", dtype) > bound("exp", dtype)
    assert measured("logistic", dtype) > bound("logistic", dtype)


def changed(key: str, i: int, by: int):
    """A coefficient moved by so many times the spacing of its format."""
    values = [*_functions.COEFFICIENTS[key]]
    kind = np.float32 if key.endswith("32") else np.float64
    values[i] += by * float(np.spacing(kind(values[i])))
    return tuple(values)


@pytest.mark.parametrize(
    ("key", "name", "by"),
    [
        ("tanh_p_32", "tanh", 4),
        ("tanh_q_32", "tanh", 4),
        ("expm1_p_32", "expm1", 4),
        ("expm1_p_64", "expm1", 4),
        ("ln2_32", "exp", 4),
        ("ln2_64", "exp", 4),
        ("exp2_p_32", "exp2", 4),
        ("exp2_p_64", "exp2", 4),
        ("log1p_p_32", "log", 4),
        ("log1p_p_64", "log", 64),
        ("erf_p_32", "erf", 4),
        ("erfc_q_64", "erf", 256),
    ],
)
def test_a_coefficient_whose_last_digits_change_is_seen(monkeypatch, key, name, by):
    dtype = np.float32 if key.endswith("32") else np.float64
    if dtype == np.float64 and not EXTENDED:
        pytest.skip("long double is double here")
    monkeypatch.setitem(_functions.COEFFICIENTS, key, changed(key, 0, by))
    assert measured(name, dtype) > bound(name, dtype)


FITS = pathlib.Path(__file__).parents[2] / "benchmarks" / "fits.py"


@pytest.mark.release  # what the table gives is tested above; fitting takes a minute
def test_the_table_is_what_the_fits_make(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location(
        "fits", FITS
    )  # in no installed package
    fits = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fits)
    made = fits.table()
    monkeypatch.setattr(fits, "table", lambda: made)
    monkeypatch.setattr(fits, "FILE", tmp_path / "functions.py")
    monkeypatch.setattr("sys.argv", ["fits", "--check"])
    text = pathlib.Path(_functions.__file__).read_text(encoding="utf-8")
    fits.FILE.write_text(text, encoding="utf-8")
    fits.main()
    digit = str(_functions.COEFFICIENTS["log1p_p_64"][-1])
    other = digit[:-1] + str((int(digit[-1]) + 1) % 10)
    fits.FILE.write_text(text.replace(digit, other), encoding="utf-8")
    with pytest.raises(SystemExit, match="not as the fits have it"):
        fits.main()
