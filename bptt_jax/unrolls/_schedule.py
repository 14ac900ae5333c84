"""When to store the state: the binomial schedule (Griewank, Walther 2000, "revolve").

To pull back t steps, of which only the state before the first is stored, with s slots
(that one's is the first): run y steps and store the state there in a slot of its own,
pull back the t - y steps after it with s - 1 slots, give the slot back, and pull back the
first y steps with s. With s = 1 nothing more can be stored: each step is reached from
the start. With

    (1)  β(s, r) = C(s + r, s)       the most steps that s slots pull back when none of
                                     them runs more than r times before its own turn
    (2)  r = the least with β(s, r) >= t
    (3)  y = min(β(s, r - 1), t - β(s - 1, r - 1))
    (4)  evaluations(t, s) = (r + 1) t - C(s + r, r - 1)        the least there is

In (3) both parts stay where (4) is linear: β(s, r-2) <= y <= β(s, r-1) and
β(s-1, r-1) <= t - y <= β(s-1, r), since β(s, r) = β(s, r-1) + β(s-1, r).
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

LARGEST = np.iinfo(np.int32).max


def repetitions(t: int, slots: int) -> int:
    """r of (2)."""
    if slots == 1:
        return t - 1
    r = 0
    while math.comb(slots + r, slots) < t:
        r += 1
    return r


def evaluations(t: int, slots: int) -> int:
    """Steps run forward to pull back t of them, the step about to be pulled back too."""
    r = repetitions(t, slots)
    return (r + 1) * t - math.comb(slots + r, r - 1) if r else t


def table(t: int, slots: int) -> np.ndarray:
    """β(s, r) for s up to `slots`, and r as far as t steps need it (one slot: nowhere)."""
    widest = repetitions(t, slots) if slots > 1 else 1
    return np.array(
        [
            [min(math.comb(s + r, s), LARGEST) for r in range(widest + 1)]
            for s in range(slots + 1)
        ],
        np.int32,
    )


def split(betas: np.ndarray | Array, t: Array, slots: Array) -> Array:
    """y of (3), for t of at least 2 and `slots` of at least 2."""
    betas = jnp.asarray(betas)
    r = jnp.sum(betas[slots] < t, dtype=jnp.int32)  # (2)
    return jnp.minimum(betas[slots, r - 1], t - betas[slots - 1, r - 1])
