"""Names of JAX that have moved since the oldest version that is supported.

Each is the newest version's own where there is one. Nowhere else is a version asked for.
"""

from collections.abc import Iterable
from typing import Any

import jax
from jax import Array, lax

OLDEST = (0, 7, 2)

if jax.__version_info__ < OLDEST:
    raise ImportError(
        f"bptt_jax needs JAX {'.'.join(map(str, OLDEST))} or later, got {jax.__version__}; "
        'pip install --upgrade "jax>=0.7.2"'
    )

try:
    from jax import enable_x64
except ImportError:  # before 0.8
    from jax.experimental import enable_x64  # pyright: ignore[reportAttributeAccessIssue]

__all__ = ["enable_x64", "to_varying", "varying_axes"]


def varying_axes(a: Any) -> frozenset[Any]:
    """The axes of `shard_map`'s mesh over which an array differs."""
    kind = jax.typeof(a)
    return kind.vma if hasattr(kind, "vma") else kind.mat.varying  # 0.12: among others


def to_varying(a: Array, axes: Iterable[Any]) -> Array:
    """`lax.pcast(a, axes, to="varying")`, before 0.8 `lax.pvary(a, axes)`."""
    if hasattr(lax, "pcast"):
        return lax.pcast(a, tuple(axes), to="varying")
    return lax.pvary(a, tuple(axes))  # pyright: ignore[reportAttributeAccessIssue]
