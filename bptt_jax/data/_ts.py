"""`.ts`: sequences of the archives of time series, as aeon and sktime have them.

A header of `@name value`; below `@data` a line is a sequence: its dimensions, then its label
or number, apart by `:`, the steps of a dimension apart by `,`.
"""

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from bptt_jax.data._dataset import Columns, Dataset, Format, bytes_of, numbered, parses


class Header(NamedTuple):
    """What is said above the data.

    targets: whether a sequence has one.
    numbers: whether that is a number.
    labels: those there are; (): not said.
    dimensions: None: not said.
    """

    targets: bool = False
    numbers: bool = False
    labels: tuple[str, ...] = ()
    dimensions: int | None = None


def read(file: BinaryIO, columns: Columns) -> Dataset:
    for name, value in columns._asdict().items():
        if value is not None:
            raise ValueError(
                f"{name}: a .ts file has no columns; it says itself what is what"
            )
    try:
        return _read(codecs.iterdecode(file, "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"no text in UTF-8: {error}") from None


def _read(lines: Iterator[str]) -> Dataset:
    numbers = enumerate(lines, 1)
    header = _header(numbers)
    xs, ys = [], []
    for number, line in numbers:
        line = line.strip()
        if not line or line[0] in "#%":
            continue
        *dimensions, y = line.split(":") if header.targets else (*line.split(":"), "")
        x = _sequence(dimensions, number)
        expected = xs[0].shape[1] if xs else header.dimensions or x.shape[1]
        if x.shape[1] != expected:
            raise ValueError(
                f"line {number}: expected {expected} dimensions, got {x.shape[1]}"
            )
        xs.append(x)
        ys.append(_target(y.strip(), header, number))
    if not xs:
        raise ValueError("no sequences below @data")
    return Dataset(xs, _targets(ys, header), numbered(xs[0].shape[1]))


def _header(lines: Iterator[tuple[int, str]]) -> Header:
    found = Header()
    for _, line in lines:
        words = line.split()
        if not words or not words[0].startswith("@"):
            continue
        name, values = words[0].lower(), words[1:]
        true = values[:1] != [] and values[0].lower() == "true"
        if name == "@data":
            return found
        if name == "@timestamps" and true:
            raise ValueError(
                "@timeStamps true: steps with times of their own are not read"
            )
        if name in ("@dimension", "@dimensions") and values and values[0].isdecimal():
            found = found._replace(dimensions=int(values[0]))
        if name == "@classlabel" and true:
            found = found._replace(targets=True, labels=tuple(values[1:]))
        if name == "@targetlabel" and true:
            found = found._replace(targets=True, numbers=True)
    raise ValueError("no line @data; expected a header and sequences below it")


def _sequence(dimensions: list[str], number: int) -> np.ndarray:
    """float64 `[T, F]`."""
    each = [_numbers(text, i, number) for i, text in enumerate(dimensions)]
    lengths = sorted({len(a) for a in each})
    if len(lengths) != 1:
        raise ValueError(
            f"line {number}: dimensions of {lengths[0]} and {lengths[-1]} steps"
            if lengths
            else f"line {number}: expected dimensions and a label, apart by a colon"
        )
    return np.stack(each, 1)


def _numbers(text: str, dimension: int, number: int) -> np.ndarray:
    parts = text.split(",")
    try:
        found = np.array([float(part) for part in parts])
    except ValueError:
        found = np.array([float(part) if parses(part) else np.nan for part in parts])
    if not np.isfinite(found).all():
        step = int(np.isfinite(found).argmin())
        raise ValueError(
            f"line {number}, dimension {dimension}, step {step}: "
            f"{parts[step].strip()[:40]!r}; expected a finite number"
        )
    return found


def _target(text: str, header: Header, number: int) -> str | float:
    if header.labels and text not in header.labels:
        raise ValueError(
            f"line {number}: label {text!r}; labels of the header are "
            f"{' '.join(header.labels)}"
        )
    if not header.numbers:
        return text
    if not parses(text):
        raise ValueError(f"line {number}: {text[:40]!r}; expected a number as target")
    return float(text)


def _targets(found: list, header: Header) -> np.ndarray | None:
    """Labels that are whole numbers as such; 01 is none, which might be there beside 1."""
    if not header.targets:
        return None
    if not header.numbers and all(map(_is_whole, found)):
        return np.array(found).astype(np.int64)
    return np.array(found)


def _is_whole(text: str) -> bool:
    """Whether it is a number of int64 as that is written."""
    fits = re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text)
    return fits is not None and -(2**63) <= int(text) < 2**63


TS = Format("sequences of an archive (.ts)", b"", bytes_of, read)
