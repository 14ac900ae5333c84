"""Kernels by themselves: between guards, over several pools of threads, and with faults."""

import ctypes
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt_jax import cells
from bptt_jax._jax import enable_x64
from bptt_jax.native import _compiled
from bptt_jax.native._handler import LEAST
from support import frames
from support.stretches import CELLS, Made, made
from support.tiers import slow

BATCHES = (), (1,), (5,), (13,), (50,), (2, 4)
OF_ALL = (), (13,)
"""Of all cells in the fast tier: the batches that tests of faults have, and none."""


@pytest.mark.parametrize("reverse", [False, True], ids=("forward", "backward"))
@pytest.mark.parametrize(
    ("name", "batch"),
    [slow((c, b), c == "lstm" or b in OF_ALL) for c in CELLS for b in BATCHES],
    ids=str,
)
def test_nothing_is_written_outside(name, batch, reverse):
    case = made(name, batch, 3, reverse)
    found, whole = case.run()
    assert case.is_right(found)
    assert whole


any_stretch = given(
    name=st.sampled_from(sorted(CELLS)),
    T=st.integers(1, 9),
    batch=st.one_of(st.tuples(st.integers(1, 70)), st.just((9, 7))),
    hidden=st.integers(1, 40),
    reverse=st.booleans(),
    threads=st.integers(1, 20),
    later=st.booleans(),
    dtype=st.sampled_from((np.float32, np.float64)),
)


def _any_stretch(name, T, batch, hidden, reverse, threads, later, dtype):
    """Several panels, blocks of steps and tasks, each with a rest or without."""
    with enable_x64(dtype == np.float64):
        cell, scale = CELLS[name](3, hidden, param_dtype=dtype), hidden**-0.5
        case = Made(cell, batch, T, reverse, dtype, scale)
        pool = frames.Pool(threads, later=later)
        found, whole = case.run(pool=pool)
    assert whole
    assert case.is_right(found, 1e-10 if dtype == np.float64 else 1e-4)
    assert pool.scheduled == max(1, min(threads, case.rows // LEAST)) - 1


@settings(max_examples=4, deadline=None)
@any_stretch
def test_any_stretch(**drawn):
    _any_stretch(**drawn)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@any_stretch
def test_many_stretches(**drawn):
    _any_stretch(**drawn)


POOLS = {
    "one": dict(threads=1),
    "two": dict(threads=2),
    "many": dict(threads=64),
    "later": dict(threads=3, later=True),
    "unknown": dict(threads=None),
    "refuses": dict(threads=3, refuses=True),
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("reverse", [False, True], ids=("forward", "backward"))
def test_whatever_the_pool_of_threads_is(pool, reverse):
    """Every row once, one future that is completed once; no bit of a row depends on it, and a
    sum over rows on nothing but the number of tasks.
    """
    case = made("lstm", (13,), 4, reverse)
    alone, _ = case.run()
    threads = frames.Pool(**POOLS[pool])
    found, whole = case.run(pool=threads)
    assert whole
    assert case.is_right(found)
    of_rows = len(found) - case.sums
    for a, b in zip(found[:of_rows], alone[:of_rows], strict=True):
        np.testing.assert_array_equal(a, b)
    again, _ = case.run(pool=frames.Pool(**POOLS[pool]))
    for a, b in zip(found, again, strict=True):
        np.testing.assert_array_equal(a, b)
    several = pool in ("two", "many", "later", "refuses")
    assert threads.completed == several
    tasks = {"two": 2, "many": 3, "later": 3}.get(pool, 1)
    assert threads.scheduled == tasks - 1
    assert threads.forgotten == {"refuses": 2}.get(pool, 0)


def test_a_row_is_the_same_wherever_it_is():
    """Its bits depend neither on the place nor on how many there are."""
    whole = made("gru", (13,), 3, False)
    found, _ = whole.run()
    extras = len(whole.arguments) - 2  # before the carry and the inputs
    for rows in (slice(0, 1), slice(4, 9), slice(11, 13)):
        part = [*whole.arguments[:extras], whole.arguments[extras][rows],
                whole.arguments[extras + 1][:, rows]]  # fmt: skip
        like = [whole.wanted[0][rows], *(a[:, rows] for a in whole.wanted[1:])]
        n = len(range(*rows.indices(13)))
        again, _ = frames.call(
            frames.entry(whole.text), part, like, rows=n, steps=whole.steps
        )
        np.testing.assert_array_equal(again[0], found[0][rows])
        for a, b in zip(again[1:], found[1:], strict=True):
            np.testing.assert_array_equal(a, b[:, rows])


def test_what_is_not_finite_stays_in_its_row():
    case = made("lstm", (13,), 4, False)
    clean, _ = case.run()
    poisoned = [a.copy() for a in case.arguments]
    xs = poisoned[-1]
    xs[1, 6, 0], xs[2, 2, 1] = np.nan, np.inf
    found, _ = case.run(arguments=poisoned)
    others = [i for i in range(13) if i not in (2, 6)]
    for a, b, step in zip(found[2:], clean[2:], (1, 1), strict=False):
        np.testing.assert_array_equal(a[:, others], b[:, others])
        np.testing.assert_array_equal(a[:step, 6], b[:step, 6])
        assert np.isnan(a[step:, 6]).any()
    assert np.isnan(found[0][6]).all()


def replaced(text: str, pattern: str, by, count: int = 1) -> str:
    new, n = re.subn(pattern, by, text, count=count)
    assert n, pattern
    return new


def _swapped_gates(text):
    """The offsets 21 and 42 of a row of gates, of i and f: what loads one loads the other."""
    new = re.sub(
        r"(add i64 %\"[^\"]+\", )(21|42)\b",
        lambda m: m[1] + {"21": "42", "42": "21"}[m[2]],
        text,
    )
    assert new != text
    return new


FAULTS = {
    "one gate is read for another": _swapped_gates,
    "the last lanes of a row are not written": lambda t: replaced(
        t,
        r"(call void @\"llvm\.masked\.store[^\n]*)i1 1, i1 1, i1 1",
        r"\1i1 0, i1 1, i1 1",
        0,
    ),
    "more lanes are written than a row has": lambda t: replaced(
        t, r"(call void @\"llvm\.masked\.store[^\n]*)i1 0>", r"\1i1 1>", 0
    ),
    "the carry of the first step is that of the first rows": lambda t: replaced(
        t, r"mul i64 (%\"[^\"]+\"), 21\b", r"mul i64 \1, 0"
    ),
    "the larger of NaN and 0 is 0": lambda t: replaced(t, "maximum", "maxnum", 0),
}


OF_THE_RUNTIME = {
    "a row is left out where rows are not a multiple of a tile": lambda t: replaced(
        t, r"icmp sge i64 (%\"[^\"]+\"), 3\b", r"icmp sge i64 \1, 4", 0
    ),
    "a product forgets its first number": lambda t: replaced(
        t, r"phi  ?i64 \[0, (%\"[^\"]+\")\](?=[^}]*fma)", r"phi i64 [1, \1]", 0
    ),
    "the second part of the rows begins a row late": lambda t: replaced(
        t, r"%from = sub i64 %at, %start", "%from = add i64 1, 0"
    ),
    "the last task's rows are not done": lambda t: replaced(
        t, r"%more = add i64 %index, 1", "%more = add i64 %index, 0"
    ),
}


OF_SUMS = {
    "what other tasks have summed is not added": lambda t: replaced(
        t, r"%n = select i1 %nothing, i64 1, i64 %tasks", "%n = add i64 0, 1"
    ),
    "a task's sums begin with what was there": lambda t: replaced(
        t, r"%zeros = select i1 %apart, i64 %bytes, i64 0", "%zeros = add i64 0, 0"
    ),
    "the result begins with what was there": lambda t: replaced(
        t, r"%sums_bytes = mul i64 %sums, %models", "%sums_bytes = mul i64 %sums, 0"
    ),
    "every task adds to the result": lambda t: replaced(
        t, r"%apart = and i1 %one, %later", "%apart = and i1 %one, 0"
    ),
}


@pytest.mark.parametrize("fault", OF_SUMS)
def test_a_fault_in_sums_is_seen(fault):
    case = made("lstm", (50,), 3, True)
    text = _compiled.runtime_text()
    assert case.is_right(case.run(pool=frames.Pool(threads=3), runtime=text)[0])
    found, _ = case.run(pool=frames.Pool(threads=3), runtime=OF_SUMS[fault](text))
    assert not case.is_right(found)


OF_BLOCKS = {
    "the step before is the step itself": lambda t: replaced(
        t, r"icmp eq i64 (%\"[^\"]+\"), 0\n", r"icmp eq i64 \1, -1\n", 0
    ),
    "steps that fill no block are left out": lambda t: replaced(
        t, r"(sdiv i64 128, [^\n]*\n[^\n]*\n[^\n]*add i64 [^,]*), [^\n]*", r"\1, 0"
    ),
    "each step of a block is its first": lambda t: replaced(
        t,
        r"(phi  i64 \[0, [^\n]*\n(?:[^\n]*\n){1,6}?[^\n]*= add i64 [^,]*), [^\n]*",
        r"\1, 0",
    ),
}


@pytest.mark.parametrize("fault", OF_BLOCKS)
def test_a_fault_in_blocks_of_steps_is_seen(fault):
    case = made("lstm", (50,), 3, True)
    found, whole = case.run(OF_BLOCKS[fault](case.text))
    assert not case.is_right(found) or not whole


def test_without_memory_there_is_an_error():
    """It is XLA's, made by it, and no row is touched."""
    case = made("lstm", (13,), 4, True)
    text = replaced(
        case.text,
        r"(i64 \d+, i64 \d+,\s+i64 )\d+(, i64 \d+\)\n  ret)",
        rf"\g<1>{2**60}\2",
    )
    pool = frames.Pool(threads=2)
    with pytest.raises(frames.Refused, match="no memory"):
        case.run(text, pool)
    assert not pool.scheduled


@pytest.mark.parametrize("fault", OF_THE_RUNTIME)
def test_a_fault_in_what_kernels_call_is_seen(fault):
    case = made("lstm", (13,), 4, False)
    runtime = OF_THE_RUNTIME[fault](_compiled.runtime_text())
    found, whole = case.run(pool=frames.Pool(threads=2), runtime=runtime)
    assert not case.is_right(found) or not whole


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_generated_code_is_seen(fault):
    """Each is a change of a kernel's text that one of the checks above must see."""
    case = made("relu" if "0 is 0" in fault else "lstm", (13,), 4, False)
    text = FAULTS[fault](case.text)
    assert text != case.text
    found, whole = case.run(text, frames.Pool(threads=2))
    poisoned = [a.copy() for a in case.arguments]
    poisoned[-1][-1, 6] = np.nan
    told, _ = case.run(text, arguments=poisoned)
    hidden = not np.isnan(told[0][6]).all()
    assert not case.is_right(found) or not whole or hidden


ADVISE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int)


@pytest.mark.skipif("linux" not in _compiled.this_machine().triple, reason="not Linux")
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_results_are_asked_for_in_large_pages(dtype, beside):
    """Whole pages of 2 MB within results, whatever their dtype is; of nothing else any. What
    two of them share that lie side by side is theirs, too.
    """
    page, asked = 2**21, []

    @ADVISE
    def madvise(at, length, advice):
        assert length > 0
        assert advice == 14
        asked.extend(range(at, at + length, page))
        return -1  # of a system that has none

    runtime = replaced(
        _compiled.runtime_text(),
        r"call i32 @madvise",
        f"call i32 inttoptr (i64 {ctypes.cast(madvise, ctypes.c_void_p).value} to ptr)",
    )
    with enable_x64(dtype == np.float64):
        cell = cells.elman(3, 64, param_dtype=dtype)
        case = Made(cell, (8,), 2200, False, dtype, 0.05)
        pool = frames.Pool(threads=2)
        found, whole = case.run(pool=pool, runtime=runtime, beside=beside)
    assert whole
    assert case.is_right(found, 1e-4)
    ends = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in found if a.nbytes > page]
    assert len(ends) == 2
    if beside:
        ends = [(ends[0][0], ends[1][1])]
    first, last = zip(*ends, strict=True)
    pages = [range(-(-a // page) * page, b // page * page, page) for a, b in ends]
    assert sorted(set(asked)) == sorted(at for each in pages for at in each)
    assert min(asked) >= min(first)
    assert max(asked) + page <= max(last)


ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int64)


@pytest.mark.parametrize("scratch", [2**18, 2**19 - 64, 2**19, 5 * 2**20 + 64])
def test_tasks_write_within_what_was_allocated(scratch):
    """However much each has for itself; from some size on it begins at a large page."""
    around, given = 2**23, []

    @ALLOCATE
    def malloc(n):
        given.append(np.full(n + 2 * around, 7, np.uint8))
        return given[-1].ctypes.data + around

    text = re.sub(r"declare [^\n]*@(malloc|free)\(.*", "", _compiled.runtime_text())
    at = ctypes.cast(malloc, ctypes.c_void_p).value
    text = replaced(text, "call ptr @malloc", f"call ptr inttoptr (i64 {at} to ptr)")
    text = replaced(text, r"call void @free\(ptr %job\)", "", 0)
    case = made("lstm", (13,), 4, True)
    entry = replaced(
        case.text,
        r"(i64 \d+, i64 \d+,\s+i64 )\d+(, i64 \d+\)\n  ret)",
        rf"\g<1>{scratch}\2",
    )
    found, whole = case.run(entry, frames.Pool(threads=2), text)
    assert whole
    assert case.is_right(found)
    (memory,) = given
    assert (memory[:around] == 7).all()
    assert (memory[-around:] == 7).all()


def test_the_interface_is_asked_for_its_version():
    """With an extension in the frame a handler says which version it speaks, and does nothing."""
    address = frames.entry(made("elman", (1,), 3, False).text)
    metadata = (ctypes.c_int64 * 6)()
    extension = (ctypes.c_int64 * 4)(32, 1, 0, ctypes.addressof(metadata))
    frame = (ctypes.c_int64 * 22)()
    frame[1] = ctypes.addressof(extension)
    assert not frames.CALL(address)(ctypes.addressof(frame))
    said = (ctypes.c_int32 * 2).from_buffer(metadata, 24)
    assert list(said) == [0, min(3, said[1])]
    assert said[1] >= 1
