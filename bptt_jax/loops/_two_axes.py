"""The program of a step over arrays of two axes, which is what a TPU's compiler takes well.

A value of any shape is held as `[p, q]`: its first axes as rows, its last ones as columns,

    carry  [B, H]         [B, H]             split 1
    gates  [B, 4, H]      [B, 4H]            split 1
    mask   [B]            [B, 1]             split 1
    bias   [H]            [1, H]             split 0
    state  [H]            [1, H]             split 0

so no operation of a kernel sees one axis, or three. p or q is 1 where all rows or columns are
alike, so what is broadcast takes no room before it is used.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import Array, lax

from bptt_jax.native import ELEMENTWISE, Constant, Program, Unsupported

Shape = tuple[int, ...]


class Held(NamedTuple):
    """A value as rows and columns.

    array: `[p, q]`; a NumPy scalar: all are that number.
    shape: of the value.
    split: how many of its axes are rows.
    """

    array: Array | np.ndarray
    shape: Shape
    split: int

    @property
    def is_one(self) -> bool:
        """All of it is one number."""
        return self.array.shape in ((), (1, 1))

    @property
    def sizes(self) -> tuple[int, int]:
        """p and q where nothing is alike."""
        return sizes(self.shape, self.split)


def sizes(shape: Shape, split: int) -> tuple[int, int]:
    return math.prod(shape[:split]), math.prod(shape[split:])


def number(value, dtype, shape: Shape) -> Held:
    return Held(np.asarray(value, dtype), shape, 0)


def split_again(v: Held, split: int) -> Held:
    """With another number of axes as rows; no number moves.

    Raises:
      Unsupported: one would have to.
    """
    low, high = sorted((v.split, split))
    if not v.is_one and math.prod(v.shape[low:high]) != 1:
        raise Unsupported(f"rows of an array {list(v.shape)} become columns")
    return Held(v.array, v.shape, split)


def in_full(v: Held, p: int, q: int) -> Array:
    """`[p, q]`, with what is alike written out."""
    if v.array.shape == ():
        return lax.full((p, q), v.array, v.array.dtype)
    return lax.broadcast_in_dim(v.array, (p, q), (0, 1))


def all_of(v: Held) -> Array:
    return in_full(v, *v.sizes)


def evaluate(program: Program, inputs: Sequence[Held]) -> list[Held]:
    """The results of a program.

    Raises:
      Unsupported: an operation has no rule here, or mixes rows and columns.
    """
    env: dict[Any, Held] = dict(zip(program.inputs, inputs, strict=True))

    def read(v) -> Held:
        if isinstance(v, Constant):
            return number(v.value, v.dtype, v.shape)
        return env[v]

    for eqn in program.equations:
        operands = [read(v) for v in eqn.inputs]
        if eqn.name in ELEMENTWISE:
            results = [_elementwise(eqn, operands)]
        elif eqn.name in _RULES:
            found = _RULES[eqn.name](eqn, *operands)
            results = found if isinstance(found, list) else [found]
        else:
            raise Unsupported(f"the operation {eqn.name}")
        env |= dict(zip(eqn.results, results, strict=True))
    return [read(v) for v in program.results]


def _elementwise(eqn, operands: list[Held]) -> Held:
    shape = eqn.results[0].shape
    whole = range(len(shape))  # axes of one number are as many as the others'
    operands = [v if v.shape in ((), shape) else _as(v, shape, whole) for v in operands]
    split = next((v.split for v in operands if not v.is_one), 0)
    alike = [split_again(v, split) if v.shape == shape else v for v in operands]
    p, q = (max((*v.array.shape, 1, 1)[i] for v in alike) for i in (0, 1))
    arrays = [in_full(v, p, q) for v in alike]
    if eqn.name == "add_any":
        return Held(lax.add(*arrays), shape, split)
    return Held(eqn.primitive.bind(*arrays, **eqn.params), shape, split)


def _reshape(eqn, v: Held) -> Held:
    shape = eqn.results[0].shape
    for split in range(len(shape) + 1):
        if v.is_one or sizes(shape, split) == v.sizes:
            return Held(v.array, shape, split)
    raise Unsupported(f"a reshape of {list(v.shape)} to {list(shape)}")


def _broadcast(eqn, v: Held) -> Held:
    return _as(v, eqn.results[0].shape, eqn.params["broadcast_dimensions"])


def _as(v: Held, shape: Shape, to: Sequence[int]) -> Held:
    """Broadcast to a shape, of which its axes are those of `to`."""
    if v.is_one:
        return Held(v.array, shape, 0)
    full = v.array.shape
    for split in range(len(shape) + 1):
        rows = math.prod(n for n, axis in zip(v.shape, to, strict=True) if axis < split)
        p, q = sizes(shape, split)
        if rows == v.sizes[0] and full[0] in (1, p) and full[1] in (1, q):
            return Held(v.array, shape, split)
    raise Unsupported(f"{list(v.shape)} is broadcast to {list(shape)}")


def _place(shape: Shape, split: int, axis: int) -> tuple[int, int]:
    """Whether an axis is in rows or columns (0, 1), and how many of these one of it is."""
    side = int(axis >= split)
    low, high = ((0, split), (split, len(shape)))[side]
    if math.prod(shape[low:axis]) != 1:
        raise Unsupported(f"a cut of an array {list(shape)} at its axis {axis}")
    return side, math.prod(shape[axis + 1 : high])


def _joined(operands: Sequence[Held], axis: int, shape: Shape, new: bool) -> Held:
    """Side by side along an axis, of each operand or (new) of the result alone."""
    split = next((v.split for v in operands if not v.is_one), 0)
    split += new and axis < split
    side, _ = _place(shape, split, axis)
    inner = split - (new and side == 0)
    arrays = [all_of(split_again(v, inner)) for v in operands]
    return Held(lax.concatenate(arrays, side), shape, split)


def _concatenate(eqn, *operands: Held) -> Held:
    return _joined(operands, eqn.params["dimension"], eqn.results[0].shape, False)


def _stack(eqn, *operands: Held) -> Held:
    return _joined(operands, eqn.params["axis"], eqn.results[0].shape, True)


def _cut(v: Held, axis: int, start: int, stop: int) -> Held:
    shape = (*v.shape[:axis], stop - start, *v.shape[axis + 1 :])
    side, inner = _place(v.shape, v.split, axis)
    array = v.array
    if array.ndim and array.shape[side] > 1:
        array = lax.slice_in_dim(array, start * inner, stop * inner, axis=side)
    return Held(array, shape, v.split)


def _slice(eqn, v: Held) -> Held:
    if any(n != 1 for n in eqn.params["strides"] or ()):
        raise Unsupported("a slice with strides")
    each = zip(eqn.params["start_indices"], eqn.params["limit_indices"], strict=True)
    for axis, (start, stop) in enumerate(each):
        if (start, stop) != (0, v.shape[axis]):
            v = _cut(v, axis, int(start), int(stop))
    return v


def _split(eqn, v: Held) -> list[Held]:
    ends = np.cumsum([0, *map(int, eqn.params["sizes"])]).tolist()
    pairs = zip(ends[:-1], ends[1:], strict=True)
    return [_cut(v, eqn.params["axis"], a, b) for a, b in pairs]


def _pad(eqn, v: Held, value: Held) -> Held:
    """As parts side by side."""
    for axis, (low, high, inner) in enumerate(eqn.params["padding_config"]):
        if inner or low < 0 or high < 0:
            raise Unsupported("padding between numbers, or of fewer")
        more = lambda n, v=v, axis=axis: Held(
            value.array, (*v.shape[:axis], n, *v.shape[axis + 1 :]), v.split
        )
        parts = [
            *([more(int(low))] if low else []),
            v,
            *([more(int(high))] if high else []),
        ]
        if len(parts) > 1:
            n = sum(part.shape[axis] for part in parts)
            shape = (*v.shape[:axis], n, *v.shape[axis + 1 :])
            v = _joined(parts, axis, shape, False)
    return v


def _transpose(eqn, v: Held) -> Held:
    order, shape = eqn.params["permutation"], eqn.results[0].shape
    if v.is_one or tuple(order) == tuple(range(len(order))):
        return Held(v.array, shape, v.split)
    turned = (*range(v.split, len(order)), *range(v.split))
    if tuple(order) != turned:
        raise Unsupported(f"a transpose of {list(v.shape)} by {list(order)}")
    return Held(lax.transpose(v.array, (1, 0)), shape, len(order) - v.split)


def _product(eqn, a: Held, b: Held) -> Held:
    """Of what has examples with a weight: `[p, k] @ [k, q]`, the weight either way around."""
    (of_a, of_b), (batch, _) = eqn.params["dimension_numbers"]
    free = len(a.shape) - len(of_a)
    m, n = len(of_b), len(b.shape)
    first, last = tuple(of_b) == tuple(range(m)), tuple(of_b) == tuple(range(n - m, n))
    if batch or tuple(of_a) != tuple(range(free, len(a.shape))) or not (first or last):
        raise Unsupported(f"a product of {list(a.shape)} and {list(b.shape)}")
    left = all_of(split_again(a, free))
    right = all_of(split_again(b, m if first else n - m))
    product = lax.dot_general(
        left,
        right,
        (((1,), (0 if first else 1,)), ((), ())),
        precision=eqn.params["precision"],
        preferred_element_type=eqn.params["preferred_element_type"],
    )
    return Held(product, eqn.results[0].shape, free)


def _reduced(reduce: Callable) -> Callable:
    def rule(eqn, v: Held) -> Held:
        axes, shape = tuple(eqn.params["axes"]), eqn.results[0].shape
        sides = tuple(range(v.split)), tuple(range(v.split, len(v.shape)))
        if axes not in sides or v.is_one:
            raise Unsupported(
                f"{eqn.name} of {list(v.shape)} over the axes {list(axes)}"
            )
        side = sides.index(axes)
        array = lax.expand_dims(reduce(all_of(v), (side,)), (side,))
        return Held(array, shape, v.split if side else 0)

    return rule


_RULES: dict[str, Callable] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "dot_general": _product,
    "expand_dims": _reshape,
    "pad": _pad,
    "reduce_max": _reduced(lax.reduce_max),
    "reduce_min": _reduced(lax.reduce_min),
    "reduce_sum": _reduced(lax.reduce_sum),
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
    "squeeze": _reshape,
    "stack": _stack,
    "transpose": _transpose,
}
