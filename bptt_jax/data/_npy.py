"""`.npy`: one array."""

import math
from typing import BinaryIO

import numpy as np

from bptt_jax.data._dataset import Columns, Dataset, Format, bytes_of, numbered


def read(file: BinaryIO, columns: Columns) -> Dataset:
    said = [name for name, value in columns._asdict().items() if value is not None]
    if said:
        raise ValueError(
            f"{said[0]}: a .npy file holds inputs alone, without names; targets go with "
            "them into a .npz file"
        )
    inputs = array_of(file, "the array")
    if not inputs.ndim:
        raise ValueError("expected sequences, got a single number")
    return Dataset(inputs, features=features_of(inputs))


def features_of(inputs: np.ndarray) -> tuple[str, ...]:
    """Numbers of the features of `[N, T, ...]` or of a series `[time, F]`."""
    return numbered(
        math.prod(inputs.shape[2:]) if inputs.ndim != 2 else inputs.shape[1]
    )


def array_of(file: BinaryIO, name: str) -> np.ndarray:
    """The array that a file in NumPy's format holds; objects are not read."""
    try:
        version = np.lib.format.read_magic(file)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if header is None:
            raise ValueError(f"version {version} of the format")
        shape, _, dtype = header(file)
    except Exception as error:  # of a damaged header whatever NumPy comes to
        raise ValueError(f"{name}: the file is damaged: {error}") from None
    if dtype.hasobject:
        raise ValueError(
            f"{name} holds Python objects, which are not read (they are a pickle); save "
            "numbers, and sequences of unequal lengths padded beside their lengths"
        )
    begins = file.tell()
    rest, needed = file.seek(0, 2) - begins, math.prod(shape) * dtype.itemsize
    if rest != needed:
        raise ValueError(
            f"{name}: the file is damaged: {needed:,} bytes are announced, {rest:,} are "
            "there"
        )
    file.seek(0)
    return np.load(file, allow_pickle=False)


NPY = Format("a NumPy array (.npy)", b"\x93NUMPY", bytes_of, read)
