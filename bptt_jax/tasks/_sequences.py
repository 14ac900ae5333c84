"""Sequences of unequal lengths, as they are given and as batches have them."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax.types import PyTree, Scale

_AT_A_TIME = 2**18
_LARGEST = float(np.finfo(np.float32).max)


class Sequences(NamedTuple):
    """N sequences, one after another.

    joined: `[sum of lengths, ...]`; of inputs by names a dict of such.
    lengths: int64 `[N]`.
    begins: int64 `[N]`, where each of them begins in `joined`.
    """

    joined: Any
    lengths: np.ndarray
    begins: np.ndarray

    @classmethod
    def of(cls, joined: Any, lengths: np.ndarray) -> "Sequences":
        return cls(joined, lengths, np.cumsum(lengths) - lengths)

    def place(self, row: int) -> tuple[int, int]:
        """Sequence and step of a row of `joined`."""
        sequence = int(np.searchsorted(self.begins + self.lengths, row, side="right"))
        return sequence, int(row - self.begins[sequence])

    def over_steps(self, each: np.ndarray) -> np.ndarray:
        """What is said of sequences `[N, ...]` said of each step, as `joined`."""
        return np.repeat(each, self.lengths, axis=0)

    def and_then(self, other: "Sequences") -> "Sequences":
        both = lambda *pair: np.concatenate(pair)
        return Sequences.of(
            jax.tree.map(both, self.joined, other.joined),
            both(self.lengths, other.lengths),
        )

    def padded(self, chosen: np.ndarray, T: int) -> np.ndarray:
        """Those sequences, time first, zero where they have ended; -1 chooses none.

        Args:
          chosen: `[B]`.
          T: steps of the result, no less than the longest has.

        Returns:
          `[T, B, ...]`. No more than the longest of them is copied.
        """
        lengths = np.where(chosen < 0, 0, self.lengths[chosen])
        steps = np.arange(lengths.max(initial=0))[:, None]
        there = steps < lengths
        rows = (self.begins[chosen] + steps)[there]

        def leaf(joined):
            found = np.zeros((T, len(chosen), *joined.shape[1:]), joined.dtype)
            found[: len(steps)][there] = joined[rows]
            return found

        return jax.tree.map(leaf, self.joined)


def by_names(
    name: str, given: Mapping, one: Callable[[str, Any], Sequences]
) -> Sequences:
    """Inputs by names as one, whose `joined` is a dict.

    Args:
      one: what is made of each, by its name in errors and what was given.

    Raises:
      ValueError: there are none, or they have other lengths.
      TypeError: a name is no text; and what `one` raises.
    """
    if not given:
        raise ValueError(f"{name}: expected inputs by their names, got none")
    for key in given:
        if not isinstance(key, str):
            raise TypeError(f"{name}: expected names, got {key!r}")
    each = {key: one(f"{name}[{key!r}]", value) for key, value in given.items()}
    first, *others = each
    for key in others:
        a, b = each[first].lengths, each[key].lengths
        if len(a) != len(b):
            raise ValueError(
                f"{name}[{key!r}]: expected {len(a)} sequences, as {first} has, got {len(b)}"
            )
        if (a != b).any():
            i = int(np.argmax(a != b))
            raise ValueError(
                f"{name}[{key!r}]: expected {a[i]} steps of sequence {i}, as {first} has, "
                f"got {b[i]}"
            )
    joined = {key: found.joined for key, found in each.items()}
    return Sequences.of(joined, each[first].lengths)


def array(name: str, given: Any) -> np.ndarray:
    """`given` as an array of numbers, truths or text.

    Raises:
      TypeError, ValueError: it has another dtype, objects or complex numbers among them.
    """
    try:
        found = np.asarray(given)
    except ValueError:  # NumPy's own words are about shapes that it guessed
        raise ValueError(
            f"{name}: expected an array, got rows of unequal lengths"
        ) from None
    if found.dtype == object:
        if found.size and all(isinstance(a, str) for a in found.flat):
            return found.astype(str)
        kinds = sorted({type(a).__name__ for a in found.flat})[:3]
        raise TypeError(
            f"{name}: expected an array of numbers or text, got one of objects "
            f"({', '.join(kinds)}); unequal lengths are given as a list of arrays"
        )
    if is_float(found) and found.dtype.kind != "f":
        return found.astype(np.float32)  # bfloat16, which NumPy does not know
    if found.dtype.kind not in "biufUS":
        raise TypeError(
            f"{name}: expected real numbers, truths or text, got {found.dtype}"
        )
    return found


def is_float(a: np.ndarray) -> bool:
    return jnp.issubdtype(a.dtype, np.floating)


def is_text(a: np.ndarray) -> bool:
    return a.dtype.kind in "US"


def sequences(name: str, given: Any) -> Sequences:
    """`[N, T, ...]`, or a list of N arrays `[T, ...]`.

    Raises:
      TypeError, ValueError: it has another form, or sequences have different features.
    """
    if not isinstance(given, list | tuple):
        whole = array(name, given)
        if whole.ndim < 2:
            raise ValueError(
                f"{name}: expected [N, T, ...] or a list of N arrays [T, ...], got "
                f"{list(whole.shape)}"
            )
        N, T = whole.shape[:2]
        return Sequences.of(whole.reshape(N * T, *whole.shape[2:]), np.full(N, T))
    each = [array(f"{name}[{i}]", a) for i, a in enumerate(given)]
    for i, a in enumerate(each):
        if a.ndim == 0:
            raise ValueError(f"{name}[{i}]: expected [T, ...], got a single value")
        if a.shape[1:] != each[0].shape[1:]:
            raise ValueError(
                f"{name}[{i}]: expected features of shape {list(each[0].shape[1:])}, as "
                f"of {name}[0], got {list(a.shape[1:])}"
            )
        if is_text(a) != is_text(each[0]):
            raise TypeError(f"{name}[{i}]: expected {each[0].dtype}, got {a.dtype}")
    if not each:
        raise ValueError(f"{name}: expected at least one sequence, got none")
    return Sequences.of(np.concatenate(each), np.array([len(a) for a in each]))


def refuse_not_finite(name: str, given: Sequences) -> None:
    """Refuses NaN, infinity, and what is infinite in float32, by its place."""
    if not is_float(given.joined):
        return
    for start in range(0, len(given.joined), _AT_A_TIME):
        some = given.joined[start : start + _AT_A_TIME]
        bad = ~(np.isfinite(some) & (np.abs(some).astype(np.float64) <= _LARGEST))
        if bad.any():
            row, *feature = np.argwhere(bad)[0]
            sequence, step = given.place(start + row)
            at = f"sequence {sequence}, step {step}"
            at += "".join(f", feature {i}" for i in feature)
            raise ValueError(
                f"{name}: {some[row, *feature]} at {at}; expected finite numbers of "
                "float32 (unequal lengths are given as a list of arrays)"
            )


def scale_of(numbers: np.ndarray, used: np.ndarray) -> Scale:
    """Mean and deviation of each column over some of the rows, in float64.

    A column that does not change has a deviation of 1.

    Args:
      numbers: `[M, F]`.
      used: bool `[M]`.
    """
    F, count = numbers.shape[1], used.sum()
    low, high = np.full(F, np.inf), np.full(F, -np.inf)
    total, squares = np.zeros(F), np.zeros(F)
    for some in _pieces(numbers, used):
        total += some.sum(0)
        low, high = (
            np.minimum(low, some.min(0, initial=np.inf)),
            np.maximum(high, some.max(0, initial=-np.inf)),
        )
    mean = np.where(low == high, low, total / count)
    for some in _pieces(numbers, used):
        squares += ((some - mean) ** 2).sum(0)
    deviation = np.where(low == high, 1.0, np.sqrt(squares / count))
    deviation = np.where(deviation == 0, 1.0, deviation)  # its square may be no number
    return Scale(tuple(mean.tolist()), tuple(deviation.tolist()))


def _pieces(numbers: np.ndarray, used: np.ndarray):
    for start in range(0, len(numbers), _AT_A_TIME):
        some = slice(start, start + _AT_A_TIME)
        yield numbers[some][used[some]].astype(np.float64)


def scaled(numbers: np.ndarray, scale: Scale | None) -> np.ndarray:
    """`[M, F]` in float32, by the scale if there is one."""
    found = np.empty(numbers.shape, np.float32)
    for start in range(0, len(numbers), _AT_A_TIME):
        some = slice(start, start + _AT_A_TIME)
        found[some] = (
            numbers[some]
            if scale is None
            else (numbers[some].astype(np.float64) - scale.mean) / scale.deviation
        )
    return found


def digest(arrays: PyTree) -> str:
    """SHA-256 of arrays and numbers, their dtypes and shapes."""
    sha256 = hashlib.sha256()
    for a in map(np.asarray, jax.tree.leaves(arrays)):
        sha256.update(f"{a.dtype}{a.shape}".encode())
        sha256.update(np.ascontiguousarray(a).data)
    return sha256.hexdigest()
