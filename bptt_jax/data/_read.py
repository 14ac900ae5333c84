"""A file as a data set."""

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from bptt_jax._processes import memory
from bptt_jax.data._csv import CSV
from bptt_jax.data._dataset import Columns, Dataset, Format
from bptt_jax.data._npy import NPY
from bptt_jax.data._npz import NPZ
from bptt_jax.data._parquet import PARQUET
from bptt_jax.data._ts import TS

FORMATS: dict[str, Format] = {
    ".csv": CSV,
    ".npy": NPY,
    ".npz": NPZ,
    ".parquet": PARQUET,
    ".ts": TS,
}


def read(
    path: str | os.PathLike,
    *,
    target: str | None = None,
    sequence: str | None = None,
    time: str | None = None,
    features: Sequence[str] | None = None,
) -> Dataset:
    r"""A file as a data set, sequences first.

    A table (`.csv`, with a line of names; `.parquet`) has a row for each step of a
    sequence, and all of its columns but those that are named are features, or those that
    `features` names. An archive's
    `.ts` says itself what its sequences and targets are. A `.npz` holds one array of
    inputs, and may hold `targets` and, where sequences are padded, `lengths` `[N]`; a
    `.npy` holds inputs alone.

    Args:
      path: its suffix says what it is.
      target: the column with labels (text, integers, truths) or numbers: where all rows of
        each sequence have the same, a sequence has one, else a step has one. Of a
        `.npz` the name of the array.
      sequence: the column that names the sequence of a row; they come in the order in
        which the file has them. None: all rows are one sequence.
      time: the column that orders the rows of a sequence: numbers, dates, or text that
        begins with the year. None: as they are in the file.
      features: the columns that are inputs, in this order; others are not looked at, whatever
        is in them. None: all that are nothing else.

    Raises:
      OSError: the file cannot be read.
      MemoryError: what is in it is larger than the machine's memory.
      TypeError: `features` are no names.
      ValueError: it is not what its name says, or has what a model cannot learn from:
        the file, and the place in it. Rows are counted from 1, names are not.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "walks.csv"
    >>> _ = path.write_text("who,x,y,kind\na,1,2,up\na,3,4,up\nb,5,6,down\n")
    >>> found = read(path, sequence="who", target="kind")
    >>> [len(a) for a in found.inputs], found.features, found.targets.tolist()
    ([2, 1], ('x', 'y'), ['up', 'down'])
    """
    path = pathlib.Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(
            f"{path}: expected a file that ends in {', '.join(FORMATS)}, got "
            f"{path.suffix or 'none of these'}"
        )
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path} is a pipe or a device; expected a file")
    columns = Columns(target, sequence, time, _names(features))
    try:
        with path.open("rb") as file:
            return _checked(file, kind, columns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except MemoryError as error:
        raise MemoryError(f"{path}: {error}") from None


def _names(features: Any) -> tuple[str, ...] | None:
    """Names of columns, at least one, each once."""
    if features is None:
        return None
    found = () if isinstance(features, str) else tuple(features)
    if not found or not all(isinstance(name, str) for name in found):
        raise TypeError(f"features: expected names of columns, got {features!r}")
    if twice := [name for name in found if found.count(name) > 1]:
        raise ValueError(f"features: {twice[0]!r} is there twice")
    return found


def _checked(file, kind: Format, columns: Columns) -> Dataset:
    """What an open file holds, after what can be refused without reading it."""
    if not os.fstat(file.fileno()).st_size:
        raise ValueError(f"the file is empty; expected {kind.what}")
    _refuse_other(file.read(_HEAD), kind)
    file.seek(0)
    size, there = kind.size(file), memory()
    if size > there:
        raise MemoryError(
            f"{_amount(size)} of data, and this machine has {_amount(there)} of memory"
        )
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return kind.read(file, columns)._replace(sha256=sha256)


_HEAD = 4096


def _refuse_other(head: bytes, kind: Format) -> None:
    """Refuses a file that is not what its name says."""
    fits = head.startswith(kind.begins) if kind.begins else b"\0" not in head
    others = [f for f in FORMATS.values() if f.begins and head.startswith(f.begins)]
    if fits and (kind.begins or not others):
        return
    text = "text" if b"\0" not in head else "other bytes"
    found = others[0].what if others else text
    raise ValueError(
        f"expected {kind.what}, got {found}; a file's suffix says what it is"
    )


def _amount(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
