"""What a file holds, and what is asked of it."""

from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple


class Columns(NamedTuple):
    """Names in a file; None: not said.

    target: what sequences are compared with.
    sequence: whose rows are one sequence.
    time: the order within a sequence.
    features: the inputs, in this order; None: all the others.
    """

    target: str | None = None
    sequence: str | None = None
    time: str | None = None
    features: tuple[str, ...] | None = None


class Dataset(NamedTuple):
    """What a file holds, as `tasks.arrays` takes it.

    inputs: `[N, T, ...]`, or a list of N arrays `[T, F]` of unequal lengths; of a `.npy`
        file the array as it is, a series `[time, F]` for instance.
    targets: one a sequence `[N, ...]`, or a list of N with one a step; None: the file has
        none.
    features: the name of each feature; where the file has no names, their numbers.
    sequences: the name of each sequence, where the file has names.
    sha256: of the file's bytes.
    """

    inputs: Any
    targets: Any = None
    features: tuple[str, ...] = ()
    sequences: tuple = ()
    sha256: str = ""


class Format(NamedTuple):
    """One kind of file.

    what: its name, as an error says it.
    begins: the bytes that each such file begins with; empty: it is text.
    size: an open file -> bytes of what is in it, before any of that is read.
    read: `(file, columns) -> Dataset`; what it raises does not name the file.
    """

    what: str
    begins: bytes
    size: Callable[[BinaryIO], int]
    read: Callable[[BinaryIO, Columns], Dataset]


def bytes_of(file: BinaryIO) -> int:
    """Of the file itself: what is in it is about as large."""
    at = file.tell()
    size = file.seek(0, 2)
    file.seek(at)
    return size


def numbered(features: int) -> tuple[str, ...]:
    """Names of features that have none."""
    return tuple(map(str, range(features)))


def parses(text: str) -> bool:
    """Whether it is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
