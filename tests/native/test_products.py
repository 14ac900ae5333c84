"""The product that all kernels call, by itself: every number of rows, columns and summands."""

import ctypes
import functools
import re

import llvmlite.ir as ir
import numpy as np
import pytest

from bptt_jax._jax import enable_x64
from bptt_jax.native import _compiled, _products
from support import frames

ROWS = range(1, 15)
N, A = (1, 5, 33, 150), (1, 7, 300)
"""Columns: less than a vector, and blocks of all widths, side by side and left over."""
SCALARS = {np.float32: ir.FloatType(), np.float64: ir.DoubleType()}
INT, PTR = ctypes.c_int64, ctypes.c_void_p
FUNCTION = ctypes.CFUNCTYPE(
    None, PTR, INT, INT, PTR, INT, INT, INT, PTR, INT, INT, INT, ctypes.c_bool
)
EVERY = [(rows, n, a) for rows in ROWS for n in N for a in A]


def product(runtime: str, dtype):
    """`(x, w, before, packed) -> (y, whether nothing beside it is touched)`."""
    name = _products.name_of(SCALARS[dtype])
    library = frames._runtime(runtime, _compiled.this_machine())
    call = FUNCTION(library.symbols[name])
    lanes = _compiled.this_machine().bits // (8 * np.dtype(dtype).itemsize)

    def run(x, w, before, packed):
        (rows, a), n = x.shape, w.shape[1]
        wide = _products.padded(n, lanes)
        weight = in_blocks(a, n, dtype, lanes) if packed else padded(w, wide)
        y = np.zeros((rows, wide), dtype)
        y[:, :n] = 0 if before is None else before
        out, left = frames.Guarded(y), frames.Guarded(x)
        of_w = (a, 0) if packed else (1, wide)
        right = frames.Guarded(weight)
        call(
            left.address, a, 1, right.address, *of_w, a, out.address, wide, rows,
            wide // lanes, before is None,
        )  # fmt: skip
        return out.value[:, :n].copy(), out.is_whole

    return run


@functools.cache
def drawn(*shape: int, dtype) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(dtype)


def arguments(rows, n, a, dtype):
    return [drawn(*shape, dtype=dtype) for shape in ((rows, a), (a, n), (rows, n))]


def padded(w, wide):
    return np.pad(w, ((0, 0), (0, wide - w.shape[1])))


@functools.cache
def in_blocks(a, n, dtype, lanes):
    with enable_x64(True):
        w = drawn(a, n, dtype=dtype)
        return np.asarray(_products.packed(w, _compiled.this_machine(), lanes))


def wrong(run, dtype, packed, sizes=EVERY) -> list[tuple]:
    """The sizes at which a product is none, or touches what it should not."""
    found = []
    for at in sizes:
        x, w, before = arguments(*at, dtype)
        for start in (None, before):
            y, whole = run(x, w, start, packed)
            exact = x.astype(np.float64) @ w + (0 if start is None else start)
            close = np.abs(y - exact).max() <= 64 * at[2] ** 0.5 * np.finfo(dtype).eps
            if not (close and whole):
                found.append(at)
    return found


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", SCALARS)
def test_a_product_of_any_size(dtype, packed):
    assert wrong(product(_compiled.runtime_text(), dtype), dtype, packed) == []


@pytest.mark.parametrize("dtype", SCALARS)
def test_the_bits_of_a_row_are_the_same_among_any_others(dtype):
    run = product(_compiled.runtime_text(), dtype)
    x, w, _ = arguments(max(ROWS), 150, 300, dtype)
    alone = np.concatenate([run(row[None], w, None, True)[0] for row in x])
    for rows in ROWS:
        assert (run(x[:rows].copy(), w, None, True)[0] == alone[:rows]).all()
        assert (run(x[:rows].copy(), w, None, False)[0] == alone[:rows]).all()


def replaced(text: str, pattern: str, by: str) -> str:
    new, n = re.subn(pattern, by, text)
    assert n
    return new


NAME = r"%\"[^\"]+\""
FAULTS = {
    "rows that are left over six are left out": lambda t: replaced(
        t, rf"icmp sge i64 ({NAME}), 3\b", r"icmp sge i64 \1, 9"
    ),
    "the last of few rows is left out": lambda t: replaced(
        t, rf"icmp sge i64 ({NAME}), 1\b", r"icmp sge i64 \1, 9"
    ),
    "blocks side by side read one": lambda t: replaced(
        t, r"mul i64 %\"between\", 1\b", "mul i64 0, 1"
    ),
    "the second part of a sum begins anew": lambda t: replaced(
        t, rf"(icmp eq i64 {NAME}), 0\n", r"\1, 128\n"
    ),
    "rows are taken for six more than there are": lambda t: replaced(
        t, rf"srem i64 ({NAME}), 6", r"srem i64 \1, 7"
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault):
    runtime = FAULTS[fault](_compiled.runtime_text())
    few = [at for at in EVERY if at[1] == 150 and at[2] > 1]
    assert wrong(product(runtime, np.float32), np.float32, True, few)
