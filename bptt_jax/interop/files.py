"""Safetensors files: the whole header is checked before any array is read.

    8 bytes           N, little endian
    N bytes           JSON: {name: {"dtype", "shape", "data_offsets"}, "__metadata__": {}}
    to the end        the arrays, one after another, with no gap

What a file says about itself is compared with its size before anything is allocated, so
a file that lies costs no memory. There is no pickle, and no code in a file is run.
"""

import itertools
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from bptt_jax import _files

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "C64": np.dtype(np.complex64),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
PARTS = {DTYPES["F64"]: np.dtype(complex), DTYPES["F32"]: DTYPES["C64"]}
LARGEST_HEADER = 1 << 24
"""Bytes: room for more than 100,000 arrays."""
LONGEST_NAME = 500
ADVICE = (
    "expected safetensors: safetensors.torch.save_file(module.state_dict(), "
    "'weights.safetensors') makes one (a pickle can run any code when it is read)"
)
KERAS_ADVICE = (
    "expected safetensors: safetensors.numpy.save_file({v.path: v.numpy() for v in "
    "model.weights}, 'weights.safetensors') makes one"
)
NUMPY_ADVICE = (
    "expected safetensors: safetensors.numpy.save_file makes one of arrays by name"
)
ARCHIVE = b"PK\x03\x04"
OTHER_FORMATS = {
    ARCHIVE: ("a zip archive, as torch.save makes", ADVICE),
    b"\x80": ("a pickle", ADVICE),
    b"\x89HDF": ("an HDF5 file", KERAS_ADVICE),
    b"\x93NUMPY": ("an array of NumPy (.npy)", NUMPY_ADVICE),
}
ZIPPED = {
    r"(metadata|config)\.json|model\.weights\.h5": (
        "a model of Keras (.keras, a zip archive)", KERAS_ADVICE,
    ),
    r".*\.npy": ("arrays of NumPy (.npz, a zip archive)", NUMPY_ADVICE),
}  # fmt: skip
"""By the name of the first file in an archive, which begins at its byte 30."""


class Stored(NamedTuple):
    """An array that lies in a file and has not been read: `load` reads it.

    dtype: a text where it is one that is not read, "F8_E4M3" say.
    imag: where the imaginary parts of complex numbers begin, if by themselves.
    """

    path: pathlib.Path
    dtype: np.dtype | str
    shape: tuple[int, ...]
    offset: int
    imag: int | None = None


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, by name.

    Raises:
      ValueError: it is none, or it is damaged; the message names file and key.
      OSError: it cannot be opened.
    """
    arrays = stored(path)[0]
    for name, a in arrays.items():
        check_dtype(f"{path}: {name}", a)
    return {name: load(a) for name, a in arrays.items()}


def check_dtype(where: str, a: Any) -> None:
    """Refuses a `Stored` array of a dtype that is not read."""
    if isinstance(a, Stored) and isinstance(a.dtype, str):
        raise ValueError(
            f"{where}: expected a dtype of {', '.join(DTYPES)}, got {a.dtype!r:.80}"
        )


def stored(path: str | os.PathLike) -> tuple[dict[str, Stored], dict[str, str]]:
    """What a safetensors file holds, unread, and its metadata.

    Costs memory of the size of the header (of at most 16 MiB, and less than the file).
    An array of a dtype that is not read is no obstacle to the others; `check_dtype`
    refuses it.

    Raises: as `read`.
    """
    path = pathlib.Path(path)
    header, begin, size = _header(path)
    about = header.pop("__metadata__", {})
    if not (
        isinstance(about, dict) and all(isinstance(v, str) for v in about.values())
    ):
        raise ValueError(f"{path}: __metadata__: expected texts by name")
    arrays, spans = {}, []
    for name, entry in header.items():
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise ValueError(f"{path}: {name!r:.80}: no name of an array")
        dtype, shape, first, last = _entry(f"{path}: {name}", entry, size - begin)
        arrays[name] = Stored(path, dtype, shape, begin + first)
        spans.append((first, last, name))
    _check_spans(path, spans, size - begin)
    try:
        return _files.together(arrays, about, _joined)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _joined(real: Stored, imag: Stored) -> Stored:
    """Complex numbers whose parts are two arrays."""
    if real.dtype not in PARTS or real._replace(offset=imag.offset) != imag:
        raise ValueError("its parts are not two arrays of one shape and dtype")
    return real._replace(dtype=PARTS[real.dtype], imag=imag.offset)


def load(a: Stored) -> np.ndarray:
    """Reads one array."""
    if a.imag is not None:
        (real,) = (part for part, whole in PARTS.items() if whole == a.dtype)
        part = a._replace(dtype=real, imag=None)
        return _files.joined(load(part), load(part._replace(offset=a.imag)))
    count, dtype = math.prod(a.shape), np.dtype(a.dtype)
    found = np.fromfile(a.path, np.uint8, count * dtype.itemsize, offset=a.offset)
    if found.size != count * dtype.itemsize:
        raise ValueError(f"{a.path}: was cut while it was read")
    return found.view(dtype).reshape(a.shape)


def write(
    path: str | os.PathLike,
    named: dict[str, Any],
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes a new safetensors file: whole, or not at all.

    The format has no complex128: such an array is stored as two, NAME.real and NAME.imag,
    exactly, and `read` makes one of them again.

    Raises:
      ValueError: there is something of that name already, or no such folder.
      OSError: it cannot be written.
    """
    path = pathlib.Path(path)
    check_new(path)
    arrays = {name: np.array(a, order="C") for name, a in named.items()}
    arrays, about = _files.apart(arrays)
    about |= metadata or {}
    whole = save(arrays, about or None)  # a file of save_file is readable to its owner
    try:
        _files.create(path, lambda new: new.write_bytes(whole))
    except FileExistsError:
        raise ValueError(f"{path} is there already; it is not overwritten") from None


def flat(tree: Mapping, separator: str) -> dict[str, Any]:
    """A nested mapping by joined names.

    >>> from bptt_jax.interop import files
    >>> files.flat({"cell": {"ii": {"kernel": 1}}}, "/")
    {'cell/ii/kernel': 1}
    """
    named = {}
    for name, a in tree.items():
        if isinstance(a, Mapping):
            inner = flat(a, separator)
            named |= {f"{name}{separator}{n}": leaf for n, leaf in inner.items()}
        else:
            named[str(name)] = a
    return named


def check_new(path: pathlib.Path) -> None:
    """Refuses a path where there is something, or in no folder."""
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such folder")
    if os.path.lexists(path):
        raise ValueError(f"{path} is there already; it is not overwritten")


def _header(path: pathlib.Path) -> tuple[dict, int, int]:
    """The header, where the arrays begin, and the size of the file."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(9)
        n = int.from_bytes(start[:8], "little")  # it can begin as a pickle does
        if len(start) < 9 or n > size - 8 or start[8:] != b"{":
            what = _other_format(start + file.read(300))
            raise ValueError(f"{path}: {what}")
        if n > LARGEST_HEADER:
            raise ValueError(f"{path}: a header of {n} bytes, more than names need")
        text = start[8:] + file.read(n - 1)
    if len(text) != n:
        raise ValueError(f"{path}: was cut while it was read")
    return _parsed(path, text), 8 + n, size


def _other_format(start: bytes) -> str:
    """What a file is that begins so, and how to come to one that is read."""
    kind = next((k for m, k in OTHER_FORMATS.items() if start.startswith(m)), None)
    if start.startswith(ARCHIVE):
        n = int.from_bytes(start[26:28], "little")
        first = start[30 : 30 + n].decode("utf-8", "replace")
        zipped = (k for name, k in ZIPPED.items() if re.fullmatch(name, first))
        kind = next(zipped, kind)
    if kind is None:
        return "no safetensors file, or a truncated one"
    return "; ".join(kind)


def _parsed(path: pathlib.Path, text: bytes) -> dict:
    def unique(pairs):
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{twice:.80}: twice in the header")
        return found

    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: a header that is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: a header that is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{path}: a header that is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _is_size(n: Any) -> bool:
    return type(n) is int and 0 <= n < 1 << 48


def _entry(where: str, entry: Any, room: int) -> tuple[np.dtype | str, tuple, int, int]:
    """dtype, shape, and where the array begins and ends among the arrays."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{where}: expected a dtype, a shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str):
        raise ValueError(
            f"{where}: expected a dtype of {', '.join(DTYPES)}, got {kind!r:.80}"
        )
    if not isinstance(shape, list) or len(shape) > 32 or not all(map(_is_size, shape)):
        raise ValueError(
            f"{where}: expected a shape, a list of sizes, got {shape!r:.80}"
        )
    if not isinstance(offsets, list) or [*map(_is_size, offsets)] != [True, True]:
        raise ValueError(f"{where}: expected two data_offsets, got {offsets!r:.80}")
    first, last = offsets
    if not first <= last <= room:
        raise ValueError(
            f"{where}: data_offsets {first} to {last} lie outside of the {room} bytes "
            "of arrays"
        )
    dtype = DTYPES.get(kind)
    if dtype is None:  # how many bits a number has is not known
        return kind, tuple(shape), first, last
    if math.prod(shape) * dtype.itemsize != last - first:
        raise ValueError(
            f"{where}: {kind}{shape} does not take the {last - first} bytes that "
            "data_offsets give it"
        )
    return dtype, tuple(shape), first, last


def _check_spans(path: pathlib.Path, spans: list, room: int) -> None:
    """The arrays lie one after another and fill the file."""
    spans.sort()
    for (_, last, before), (first, _, name) in itertools.pairwise(spans):
        if first < last:
            raise ValueError(f"{path}: {name}: overlaps {before}")
        if first > last:
            raise ValueError(f"{path}: {name}: a gap between it and {before}")
    if spans and spans[0][0] != 0:
        raise ValueError(f"{path}: {spans[0][2]}: a gap before it")
    end = spans[-1][1] if spans else 0
    if end != room:
        raise ValueError(f"{path}: {room - end} bytes that belong to no array")
