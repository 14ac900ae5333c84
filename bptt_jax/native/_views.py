"""Views: where an entry of a result is, in which operand.

An index has one entry for each axis:

    (1)  a range [o, o + n) of features    `Span(o, n)`, lane j reads o + j
    (2)  one feature                       `At(o)`
    (3)  the place in the batch            `Row(axis)`

Where a range crosses the border between two operands (gates side by side) it is cut
there: `Crossed`.
"""

import dataclasses

from bptt_jax.native._program import Unsupported


@dataclasses.dataclass(frozen=True)  # no tuples: Row(0) is not At(0)
class Row:
    axis: int


@dataclasses.dataclass(frozen=True)
class At:
    offset: int


@dataclasses.dataclass(frozen=True)
class Span:
    offset: int
    n: int


class Crossed(Exception):
    """A range that has to be cut after so many features."""

    def __init__(self, after: int):
        self.after = after


def linear(index, shape) -> tuple[int, int | None]:
    """The place in memory of an index, and how many follow one another from there."""
    offset, span, stride = 0, None, 1
    for entry, size in zip(reversed(index), reversed(shape), strict=True):
        if isinstance(entry, Span):
            if stride != 1:
                raise Unsupported("features that are not next to one another in memory")
            span = entry.n
        offset += entry.offset * stride
        stride *= size
    return offset, span


def _broadcast(eqn, which, index):
    (v,) = eqn.inputs[:1]
    return v, tuple(index[d] for d in eqn.params["broadcast_dimensions"])


def _reshape(eqn, which, index):
    (v,) = eqn.inputs[:1]
    if eqn.params.get("dimensions") is not None:
        raise Unsupported("a reshape of permuted axes")
    return v, _reshaped(index, eqn.results[0].shape, v.shape)


def _reshaped(index, new, old):
    """The index in an array of shape `old` of what is at `index` in shape `new`.

    Axes of one entry come and go; the others are the same up to those that are merged or cut.
    """
    index = [entry for entry, n in zip(index, new, strict=True) if n != 1]
    new, wide = ([n for n in shape if n != 1] for shape in (new, old))
    same = 0
    while same < min(len(new), len(wide)) and new[same] == wide[same]:
        same += 1
    kept, rest = index[:same], index[same:]
    if any(isinstance(entry, Row) for entry in rest):
        raise Unsupported("a reshape over the examples")
    offset, span = linear(rest, new[same:])
    entries = []
    for size in reversed(wide[same:]):
        within, offset = offset % size, offset // size
        if span is None:
            entries.append(At(within))
        else:
            if within + span > size:
                raise Crossed(size - within)
            entries.append(Span(within, span))
            span = None
    found = iter((*kept, *reversed(entries)))
    return tuple(At(0) if n == 1 else next(found) for n in old)


def _moved(entry, by: int):
    if isinstance(entry, Row):
        if by:
            raise Unsupported("a cut through the examples")
        return entry
    return dataclasses.replace(entry, offset=entry.offset + by)


def _slice(eqn, which, index):
    (v,) = eqn.inputs
    strides = eqn.params["strides"]
    if strides is not None and any(s != 1 for s in strides):
        raise Unsupported("a slice with strides")
    starts, shape = eqn.params["start_indices"], eqn.results[0].shape
    for entry, size, whole in zip(index, shape, v.shape, strict=True):
        if isinstance(entry, Row) and size != whole:
            raise Unsupported("a cut through the examples")
    return v, tuple(_moved(e, int(s)) for e, s in zip(index, starts, strict=True))


def _split(eqn, which, index):
    (v,) = eqn.inputs
    axis, sizes = eqn.params["axis"], eqn.params["sizes"]
    if isinstance(index[axis], Row) and len(sizes) > 1:
        raise Unsupported("a cut through the examples")
    start = int(sum(sizes[:which]))
    return v, (*index[:axis], _moved(index[axis], start), *index[axis + 1 :])


def _squeeze(eqn, which, index):
    (v,) = eqn.inputs
    gone = {d % len(v.shape) for d in eqn.params["dimensions"]}
    entries = iter(index)
    return v, tuple(At(0) if i in gone else next(entries) for i in range(len(v.shape)))


def _expand(eqn, which, index):
    (v,) = eqn.inputs
    rank = len(index)
    new = {d % rank for d in eqn.params["dimensions"]}
    return v, tuple(entry for i, entry in enumerate(index) if i not in new)


def _transpose(eqn, which, index):
    (v,) = eqn.inputs
    entries = dict(zip(eqn.params["permutation"], index, strict=True))
    return v, tuple(entries[i] for i in range(len(index)))


def _of_one(eqn, which, index):
    """A sum over axes of one entry."""
    (v,) = eqn.inputs
    entries = iter(index)
    gone = eqn.params["axes"]
    return v, tuple(At(0) if i in gone else next(entries) for i in range(len(v.shape)))


def _pad(eqn, which, index):
    v, filling = eqn.inputs
    entries = []
    for entry, (low, _, inner), size in zip(
        index, eqn.params["padding_config"], v.shape, strict=True
    ):
        if inner or (
            isinstance(entry, Row) and eqn.results[0].shape != v.shape and low
        ):
            raise Unsupported("a padding between numbers or examples")
        entry = _moved(entry, -low) if low else entry
        start = 0 if isinstance(entry, Row) else entry.offset
        n = entry.n if isinstance(entry, Span) else 1
        for border in (0, size):
            if start < border < start + n:
                raise Crossed(border - start)
        if not 0 <= start < size:
            return filling, ()
        entries.append(entry)
    return v, tuple(entries)


def _concatenate(eqn, which, index):
    axis = eqn.params["dimension"]
    entry = index[axis]
    if isinstance(entry, Row):
        raise Unsupported("examples that are put together")
    start = 0
    for v in eqn.inputs:
        size = v.shape[axis]
        if entry.offset < start + size:
            break
        start += size
    inside = dataclasses.replace(entry, offset=entry.offset - start)
    if isinstance(entry, Span) and inside.offset + entry.n > size:
        raise Crossed(size - inside.offset)
    return v, (*index[:axis], inside, *index[axis + 1 :])


def _stack(eqn, which, index):
    axis = eqn.params["axis"]
    entry = index[axis]
    if not isinstance(entry, At):
        raise Unsupported("numbers that are put together one by one")
    return eqn.inputs[entry.offset], (*index[:axis], *index[axis + 1 :])


VIEWS = dict(
    broadcast_in_dim=_broadcast,
    reshape=_reshape,
    slice=_slice,
    split=_split,
    squeeze=_squeeze,
    expand_dims=_expand,
    transpose=_transpose,
    reduce_sum=_of_one,
    concatenate=_concatenate,
    pad=_pad,
    stack=_stack,
)
