"""How many steps a stretch has where nobody says it."""

import math

import jax
from jax import export

from bptt_jax.types import PyTree

SHORTEST = 8  # steps: below it the products of a stretch are small and loops many
CACHED = 2**17  # floats of one kind in a stretch: above it they leave the cache


def default_chunk(T: int, units: int = 1, shortest: int | None = None) -> int:
    """The steps of a stretch that `bptt` takes of T where it is not told.

    More steps are larger products, faster for small batches, and more memory: about T/20
    steps, fewer where a stretch of that many would leave the cache, and at least
    `shortest`; a divisor of T where one is near.

    Args:
      T: steps of time.
      units: hidden units of all examples together, B·H.
      shortest: steps; None: 8, of T < 64 an eighth of it, but 4.

    >>> default_chunk(1000, units=64), default_chunk(784, units=128 * 128)
    (50, 8)
    >>> default_chunk(5)
    5
    """
    shortest = shortest or max(SHORTEST // 2, min(SHORTEST, T // 8))
    wanted = max(shortest, min(round(T / 20), CACHED // max(1, units)))
    return near_divisor(T, wanted)


def near_divisor(T: int, wanted: int) -> int:
    """The divisor of T nearest to `wanted`; `wanted` itself where none is near."""
    near = [k for k in range(max(1, wanted // 2), 2 * wanted + 1) if T % k == 0]
    return min(near, key=lambda k: max(k / wanted, wanted / k), default=min(wanted, T))


def units(carry: PyTree) -> int:
    """Hidden units of all examples together, B·H; sizes that are symbols count as 1."""
    shapes = [a.shape for a in jax.tree.leaves(carry)]
    known = [[d for d in s if not export.is_symbolic_dim(d)] for s in shapes]
    return max(map(math.prod, known), default=1)
