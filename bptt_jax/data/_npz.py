"""`.npz`: arrays by name, of inputs, targets and lengths."""

import io
import zipfile
from typing import BinaryIO

import numpy as np

from bptt_jax.data._dataset import Columns, Dataset, Format
from bptt_jax.data._npy import array_of, features_of

_TARGETS, _LENGTHS = "targets", "lengths"


def read(file: BinaryIO, columns: Columns) -> Dataset:
    for name in ("sequence", "time", "features"):
        if getattr(columns, name) is not None:
            raise ValueError(
                f"{name}: arrays have sequences in the first axis and time in the second, "
                "not in columns"
            )
    with _archive(file) as archive:
        names = [n.removesuffix(".npy") for n in archive.namelist()]
        target = columns.target
        if target is None and _TARGETS in names:
            target = _TARGETS
        inputs = _inputs(names, target)
        arrays = {
            name: _member(archive, name)
            for name in (inputs, target, _LENGTHS)
            if name in names
        }
    xs = arrays[inputs]
    features = features_of(xs)
    if _LENGTHS in arrays:
        xs = _cut(xs, arrays[_LENGTHS])
    return Dataset(xs, None if target is None else arrays[target], features)


def _archive(file: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except Exception as error:  # of a damaged directory whatever it comes to
        raise ValueError(f"the file is damaged: {error}") from None


def _inputs(names: list[str], target: str | None) -> str:
    """The one array that is neither targets nor lengths."""
    there = ", ".join(sorted(names)) or "none"
    if target is not None and target not in names:
        raise ValueError(f"there is no array {target!r}; arrays are {there}")
    others = [name for name in names if name not in (target, _LENGTHS)]
    if len(others) != 1:
        raise ValueError(
            "expected one array of inputs, beside that of targets and `lengths`; arrays "
            f"are {there}"
        )
    return others[0]


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    try:
        content = archive.read(f"{name}.npy")
    except MemoryError:
        raise
    except Exception as error:  # each compression has its own
        raise ValueError(f"{name}: the file is damaged: {error}") from None
    return array_of(io.BytesIO(content), name)


def _cut(xs: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Padded sequences without what is padded."""
    fit = lengths.ndim == 1 and lengths.dtype.kind in "iu" and xs.ndim > 1
    if not fit or len(lengths) != len(xs):
        raise ValueError(
            f"lengths: expected one whole number for each of {len(xs)} sequences, got "
            f"{lengths.dtype} of shape {list(lengths.shape)}"
        )
    wrong = (lengths < 1) | (lengths > xs.shape[1])
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"lengths: {lengths[row]} of sequence {row}; expected from 1 to {xs.shape[1]}"
        )
    return [x[:n] for x, n in zip(xs, lengths, strict=True)]


def _size(file: BinaryIO) -> int:
    """Of the arrays, as they are once they are no longer compressed."""
    with _archive(file) as archive:
        return sum(member.file_size for member in archive.infolist())


NPZ = Format("NumPy arrays (.npz)", b"PK", _size, read)
