"""`.parquet`: a table, by pyarrow."""

from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet

from bptt_jax.data._dataset import Columns, Dataset, Format
from bptt_jax.data._table import dataset_of


def read(file: BinaryIO, columns: Columns) -> Dataset:
    try:
        table = _opened(file).read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(_damaged(error)) from None
    return dataset_of(table, columns)


def _opened(file: BinaryIO) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(_damaged(error)) from None


def _damaged(error: Exception) -> str:
    return f"the file is damaged: {str(error).splitlines()[0]}"


_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}


def _size(file: BinaryIO) -> int:
    """Of the columns in memory, where a value that is repeated takes its place each time."""
    about = _opened(file).metadata
    groups = (about.row_group(i) for i in range(about.num_row_groups))
    kinds = [about.schema.column(i).physical_type for i in range(about.num_columns)]
    row = sum(_WIDTHS.get(kind, 8) for kind in kinds)
    return max(sum(group.total_byte_size for group in groups), about.num_rows * row)


PARQUET = Format("a Parquet table (.parquet)", b"PAR1", _size, read)
