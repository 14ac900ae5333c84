"""What is constant in time, one row for each sequence."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bptt_jax.tasks._sequences import array, is_float, is_text

_LARGEST = float(np.finfo(np.float32).max)


def contexts_of(name: str, given: Any, N: int) -> Any:
    """Arrays `[N, ...]` as a model sees them: float32, int32 or truths; or a dict of these.

    Raises:
      TypeError, ValueError: they are not of such a form, or of other sequences.
    """
    if isinstance(given, Mapping):
        if not given or not all(isinstance(key, str) for key in given):
            raise TypeError(
                f"{name}: expected a dictionary by names, got {list(given)}"
            )
        return {
            key: contexts_of(f"{name}[{key!r}]", one, N) for key, one in given.items()
        }
    found = array(name, given)
    if found.ndim < 1 or len(found) != N:
        raise ValueError(
            f"{name}: expected [{N}, ...], a row for each sequence, got "
            f"{list(found.shape)}"
        )
    if is_text(found):
        raise TypeError(f"{name}: expected numbers, got text")
    if not is_float(found):
        return found if found.dtype == bool else found.astype(np.int32)
    bad = ~(np.abs(found.astype(np.float64)) <= _LARGEST)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name}: {found[at]} at {list(at)}; expected finite numbers of float32"
        )
    return found.astype(np.float32)


def rows_of(context: Any, rows: np.ndarray) -> Any:
    """Of those sequences, zero where the number is -1: leaves `[B, ...]`; None of None."""
    if isinstance(context, dict):
        return {key: rows_of(one, rows) for key, one in context.items()}
    if context is None:
        return None
    found = context[np.maximum(rows, 0)]
    found[rows < 0] = 0
    return found
