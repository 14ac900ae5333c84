"""Sequences from a table: a row is a step."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bptt_jax.data._dataset import Columns, Dataset, parses

_YEAR_FIRST = re.compile(r"\d{4}(\D\d\d)+")


def dataset_of(table: pa.Table, columns: Columns) -> Dataset:
    """What `data.read` gives of a table."""
    _refuse_table(table, columns)
    codes, names = _sequences(table, columns.sequence)
    order = _order(table, columns.time, codes)
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]
    features = _features(table, columns)
    joined = np.stack([_numbers(table, name) for name in features], 1)[order]
    targets = None
    if columns.target is not None:
        targets = _targets(_values(table, columns.target)[order], ends)
    named = tuple(names) if columns.sequence is not None else ()
    return Dataset(np.split(joined, ends), targets, tuple(features), named)


def _features(table: pa.Table, columns: Columns) -> list[str]:
    """The columns that are inputs."""
    there = table.column_names
    if columns.features is None:
        found = [name for name in there if name not in _others(columns).values()]
        if not found:
            raise ValueError("no column is left for the inputs")
        return found
    if missing := [name for name in columns.features if name not in there]:
        raise ValueError(
            f"expected the features {', '.join(columns.features)}; it lacks "
            f"{', '.join(missing)}"
        )
    for what, name in _others(columns).items():
        if name in columns.features:
            raise ValueError(f"column {name!r} cannot be {what} and a feature, too")
    return list(columns.features)


def _others(columns: Columns) -> dict[str, str]:
    """The columns that are no inputs, by what they are."""
    found = columns._asdict()
    del found["features"]
    return {what: name for what, name in found.items() if name is not None}


def _refuse_table(table: pa.Table, columns: Columns) -> None:
    """Refuses names that are missing or there twice, and a table without rows."""
    there = table.column_names
    twice = [name for name in there if there.count(name) > 1]
    if twice:
        raise ValueError(f"column {twice[0]!r} is there {there.count(twice[0])} times")
    said = list(_others(columns).values())
    for what, name in _others(columns).items():
        if name not in there:
            raise ValueError(
                f"{what}: there is no column {name!r}; columns are {_listed(there)}"
            )
        if said.count(name) > 1:
            raise ValueError(f"column {name!r} cannot be {what} and another, too")
    if not table.num_rows:
        raise ValueError(f"no rows below the names {_listed(there)}")


def _listed(names: list[str], most: int = 20) -> str:
    more = [f"… ({len(names)} in all)"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def _column(table: pa.Table, name: str) -> pa.Array:
    """A column without gaps."""
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # as newer versions have it
        column = pa.concat_arrays(column.chunks)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_binary(column.type):
        raise ValueError(f"column {name!r}: no text in UTF-8")
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise ValueError(
            f"column {name!r}, row {row + 1}: the value is missing (nothing, NA or NaN)"
        )
    return column


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _sequences(table: pa.Table, name: str | None) -> tuple[np.ndarray, list[Any]]:
    """The number of each row's sequence, in the order of their first rows; their names."""
    if name is None:
        return np.zeros(table.num_rows, np.int64), [None]
    column = _column(table, name)
    if pa.types.is_nested(column.type):
        raise ValueError(f"column {name!r}: expected names, got {column.type}")
    found = column.dictionary_encode()
    codes = found.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, found.dictionary.to_pylist()


def _order(table: pa.Table, time: str | None, codes: np.ndarray) -> np.ndarray:
    """Rows by sequence, and by time within."""
    if time is None:
        return np.argsort(codes, kind="stable")
    times = _times(table, time)
    order = np.lexsort((times, codes))
    same = (np.diff(codes[order]) == 0) & (np.diff(times[order]) == 0)
    if same.any():
        first, again = (order[int(same.argmax()) + i] + 1 for i in (0, 1))
        raise ValueError(
            f"column {time!r}: rows {first} and {again} are of the same time in the same "
            "sequence"
        )
    return order


def _times(table: pa.Table, name: str) -> np.ndarray:
    """The rank of each row's time."""
    column = _column(table, name)
    values = column.to_numpy(zero_copy_only=False)
    if _is_text(column.type):
        for row, text in enumerate(values):
            if not _YEAR_FIRST.match(text) or len(text) != len(values[0]):
                raise ValueError(
                    f"column {name!r}, row {row + 1}: {text!r}; expected a number, or a "
                    "time like 2024-05-31 that begins with the year"
                )
    elif not _is_number(column.type) and not pa.types.is_temporal(column.type):
        raise ValueError(f"column {name!r}: expected times, got {column.type}")
    else:
        _refuse_not_finite(name, values)
    return np.unique(values, return_inverse=True)[1]


def _is_number(kind: pa.DataType) -> bool:
    each = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal
    return any(is_one(kind) for is_one in each)


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers, float64, or float32 where it has these."""
    column = _column(table, name)
    if _is_text(column.type):
        texts = column.to_pylist()
        row = next((i for i, text in enumerate(texts) if not parses(text)), 0)
        raise ValueError(
            f"column {name!r}, row {row + 1}: text, {texts[row][:40]!r}; inputs are numbers "
            "(a column of text can be the target, the sequence or the time)"
        )
    if pa.types.is_decimal(column.type):
        column = pc.cast(column, pa.float64())
    if not _is_number(column.type) and not pa.types.is_boolean(column.type):
        raise ValueError(
            f"column {name!r}: {column.type}; inputs are numbers (a column of times can be "
            "the time)"
        )
    values = column.to_numpy(zero_copy_only=False)
    _refuse_not_finite(name, values)
    return values if values.dtype == np.float32 else values.astype(np.float64)


def _refuse_not_finite(name: str, values: np.ndarray) -> None:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    row = int(np.isfinite(values).argmin())
    raise ValueError(
        f"column {name!r}, row {row + 1}: {values[row]}; expected a finite number"
    )


def _values(table: pa.Table, name: str) -> np.ndarray:
    """A column of labels or numbers."""
    column = _column(table, name)
    if _is_text(column.type):
        return np.array(column.to_pylist(), str)
    if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type):
        return column.to_numpy(zero_copy_only=False)
    return _numbers(table, name)


def _targets(values: np.ndarray, ends: np.ndarray) -> Any:
    """One a sequence where its steps have all the same, else one a step."""
    each = np.split(values, ends)
    if all((a == a[0]).all() for a in each):
        return np.array([a[0] for a in each])
    if values.dtype.kind in "fb":
        return [a[:, None] for a in each]  # else it might be a vector a sequence
    return each
