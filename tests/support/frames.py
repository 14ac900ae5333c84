"""XLA's part of its foreign function interface, in ctypes: calls a kernel between guards."""

import ctypes
import functools
import itertools

import numpy as np

from bptt_jax.native import _compiled

GUARD = 64  # bytes before and after each buffer
PATTERN = 0xA5
KINDS = {"float32": 11, "float64": 12, "bfloat16": 16}  # as the interface numbers them
_numbers = itertools.count()
_kept: list = []

TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
CALL = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
FORGET = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def words(address: int, n: int):
    return (ctypes.c_int64 * n).from_address(address)


@functools.cache
def entry(text: str, runtime: str | None = None) -> int:
    """The address of a kernel's entry, compiled from its text and that of what it calls."""
    name, machine = f"tested_{next(_numbers)}", _compiled.this_machine()
    called = _runtime(runtime or _compiled.runtime_text(), machine)
    code = _compiled.object_code(text, machine)
    library, address = _compiled.link(name, code, called)
    _kept.append(library)
    return address


@functools.cache
def _runtime(text: str, machine: _compiled.Machine) -> _compiled.Library:
    code = _compiled.object_code(_dirty(text), machine)
    return _compiled.load_runtime(code, f"tested_{next(_numbers)}")


def _dirty(text: str) -> str:
    """What is allocated is full of NaN: nothing may count on zeros, or on what was there."""
    fill = "call void @llvm.memset.p0.i64(ptr %job, i8 255, i64 %bytes, i1 0)"
    assert text.count("begun:\n") == 1
    return text.replace("begun:\n", f"begun:\n  {fill}\n")


class Guarded:
    """A buffer whose surroundings are known."""

    def __init__(self, a: np.ndarray):
        self.like, self.size = a, a.nbytes
        self.memory = np.full(a.nbytes + 2 * GUARD, PATTERN, np.uint8)
        self.memory[GUARD : GUARD + a.nbytes] = (
            np.ascontiguousarray(a).reshape(-1).view(np.uint8)
        )

    @property
    def address(self) -> int:
        return self.memory.ctypes.data + GUARD

    @property
    def value(self) -> np.ndarray:
        inside = self.memory[GUARD : GUARD + self.size]
        return inside.view(self.like.dtype).reshape(self.like.shape)

    @property
    def is_whole(self) -> bool:
        outside = np.concatenate(
            [self.memory[:GUARD], self.memory[GUARD + self.size :]]
        )
        return bool((outside == PATTERN).all())


class Beside(Guarded):
    """One of several buffers in one memory, which begin at whole lines of a cache."""

    def __init__(self, a: np.ndarray, memory: np.ndarray, at: int):
        self.like, self.size = a, a.nbytes
        self.memory = memory[at - GUARD : at + a.nbytes + GUARD]
        memory[at : at + a.nbytes] = np.ascontiguousarray(a).reshape(-1).view(np.uint8)

    is_whole = True  # what is around it is others'

    @classmethod
    def each(cls, arrays) -> list["Beside"]:
        sizes = [-(-a.nbytes // GUARD) * GUARD for a in arrays]
        memory = np.full(sum(sizes) + 2 * GUARD, PATTERN, np.uint8)
        starts = itertools.accumulate(sizes, initial=GUARD)
        return [cls(a, memory, at) for a, at in zip(arrays, starts, strict=False)]


class Refused(Exception):
    """An error that a handler has made."""


class Pool:
    """XLA's threads, as a handler sees them.

    threads: how many it says there are; None: it cannot tell.
    refuses: whether it takes no task.
    later: whether tasks run after the handler has returned.
    """

    def __init__(
        self, threads: int | None, *, refuses: bool = False, later: bool = False
    ):
        self.threads, self.refuses, self.later = threads, refuses, later
        self.waiting: list = []
        self.scheduled = self.completed = self.forgotten = 0
        self.message = b""
        self.functions = [CALL(self.schedule), CALL(self.count), CALL(self.create),
                          CALL(self.complete), FORGET(self.forget), CALL(self.refuse)]  # fmt: skip
        schedule, count, create, complete, forget, refuse = (
            ctypes.cast(f, ctypes.c_void_p).value for f in self.functions
        )
        self.api = (ctypes.c_int64 * 24)()
        self.api[6], self.api[8], self.api[17], self.api[18] = (
            refuse,
            forget,
            schedule,
            count,
        )
        self.api[19], self.api[20] = create, complete

    def schedule(self, args):
        if self.refuses:
            return 1
        _, _, _, task, data = words(args, 5)
        self.scheduled += 1
        if self.later:
            self.waiting.append((task, data))
        else:
            TASK(task)(data)
        return None

    def count(self, args):
        if self.threads is None:
            return 1
        words(words(args, 4)[3], 1)[0] = self.threads
        return None

    def create(self, args):
        words(args, 3)[2] = 4242
        return None

    def complete(self, args):
        assert words(args, 3)[2] == 4242
        self.completed += 1
        return None

    def refuse(self, args):
        self.message = ctypes.string_at(words(args, 3)[2])
        return 1

    def forget(self, args):
        self.forgotten += 1

    def run_waiting(self):
        for task, data in self.waiting:
            TASK(task)(data)


def call(
    address: int, arguments, results, *, rows, steps, models=1, pool: Pool | None = None,
    beside: bool = False,
):  # fmt: skip
    """Calls a kernel; returns its results, and whether every guard is whole.

    Args:
      arguments: arrays.
      results: arrays, for shapes and dtypes.
      pool: None: no other thread is asked for.
      beside: whether results are in one memory, as XLA may have them, and not between guards.
    """
    pool = pool or Pool(None)
    given = [Guarded(a) for a in arguments]
    empty = [np.full(a.shape, 77, a.dtype) for a in results]
    made = Beside.each(empty) if beside else [Guarded(a) for a in empty]

    def pointers(buffers):
        dims = [(ctypes.c_int64 * g.like.ndim)(*g.like.shape) for g in buffers]
        each = [
            (ctypes.c_int64 * 6)(
                48, 0, KINDS.get(g.like.dtype.name, 0), g.address, g.like.ndim,
                ctypes.addressof(n),
            )
            for g, n in zip(buffers, dims, strict=True)
        ]  # fmt: skip
        table = (ctypes.c_int64 * max(1, len(each)))(*map(ctypes.addressof, each))
        return table, [*each, *dims]

    values = (ctypes.c_int64 * 4)(
        models, int(pool.threads is not None or pool.refuses), rows, steps
    )
    scalars = [
        (ctypes.c_int64 * 2)(0, ctypes.addressof(values) + 8 * i) for i in range(4)
    ]
    attributes = (ctypes.c_int64 * 4)(*map(ctypes.addressof, scalars))
    frame = (ctypes.c_int64 * 22)()
    (a, keep_a), (r, keep_r) = pointers(given), pointers(made)
    frame[2], frame[3] = ctypes.addressof(pool.api), 99
    frame[9], frame[14], frame[20] = map(ctypes.addressof, (a, r, attributes))
    error = CALL(address)(ctypes.addressof(frame))
    if error:
        raise Refused(pool.message.decode())
    for i in range(len(frame)):  # the frame ends with the handler
        frame[i] = 0x5A5A5A5A
    keep_a.clear(), keep_r.clear()
    pool.run_waiting()
    return [g.value for g in made], all(g.is_whole for g in (*given, *made))
