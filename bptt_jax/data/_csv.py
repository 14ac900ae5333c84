"""`.csv`: a table as text, with a line of names."""

import re
from typing import BinaryIO

import pyarrow as pa
from pyarrow import csv

from bptt_jax.data._dataset import Columns, Dataset, Format, bytes_of
from bptt_jax.data._table import dataset_of

_LARGEST_BLOCK = 2**31 - 1


def read(file: BinaryIO, columns: Columns) -> Dataset:
    names = file.readline().decode("utf-8-sig", "replace").strip()
    file.seek(0)
    separator = next((mark for mark in ",;\t" if mark in names), ",")
    _refuse_no_names(names.split(separator))
    # what a column holds is concluded from the first block: here from all of the file
    block = min(bytes_of(file) + 1, _LARGEST_BLOCK)
    try:
        table = csv.read_csv(
            file,
            csv.ReadOptions(use_threads=False, block_size=block),
            csv.ParseOptions(delimiter=separator),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"no table that can be read: {_said(error)}") from None
    return dataset_of(table, columns)


def _said(error: Exception) -> str:
    """An error of pyarrow, whose rows count the names, too."""
    said = str(error).removeprefix("CSV parse error: ").splitlines()[0]
    return re.sub(r"Row #(\d+): E", lambda m: f"row {int(m[1]) - 1}: e", said)


def _refuse_no_names(names: list[str]) -> None:
    try:
        [float(name.strip('" ')) for name in names]
    except ValueError:
        return
    raise ValueError("expected a first line with the columns' names, got numbers")


CSV = Format("a table as text (.csv)", b"", bytes_of, read)
