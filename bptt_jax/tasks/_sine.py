"""Sums of sines: predict the next value.

    x_t = √(2/n) Σ_k sin(ω_k t + φ_k),   φ_k ~ U[0, 2π),   ω_k ~ U[a, b)

A sequence has its own n frequencies, 2π/period with periods between two bounds, so the
learner must find them in the sequence itself (in the spirit of Hochreiter, Younger and
Conwell 2001, "Learning to learn using gradient descent"). With random phases x_t has mean
0 and variance 1, which is what predicting 0 costs; predicting the last value costs

    E (x_{t+1} - x_t)² = 2 - 2 E cos ω = 2 - 2 (sin b - sin a) / (b - a)
"""

import math

import jax
import jax.numpy as jnp

from bptt_jax import objectives
from bptt_jax._factory import factory, positive
from bptt_jax.tasks._synthetic import drawn
from bptt_jax.types import Batch, Side, Task


@factory
def sine(
    *,
    batch: int = 32,
    T: int = 100,
    waves: int = 2,
    shortest: float = 10.0,
    longest: float = 50.0,
) -> Task:
    """Sums of sines: inputs x_0 … x_{T-1} `[T, B, 1]`, targets x_1 … x_T `[T, B, 1]`.

    Args:
      batch: sequences in a batch, B.
      T: steps.
      waves: sines in a sum, n.
      shortest: period in steps, at least 2.
      longest: period in steps, longer than the shortest.

    Returns:
      A task with float32 values under `squared_error`. Drawing costs O(T·B·n).

    >>> {name: round(loss, 4) for name, loss in sine().baselines.items()}
    {'predict 0': 1.0, 'predict the last value': 0.16}
    """
    positive(batch=batch, T=T, waves=waves)
    if not 2 <= shortest < longest < math.inf:
        raise ValueError(
            "sine: periods must satisfy 2 <= shortest < longest, got "
            f"shortest {shortest} and longest {longest}"
        )
    low, high = 2 * math.pi / longest, 2 * math.pi / shortest

    def draw(key):
        key_frequencies, key_phases = jax.random.split(key)
        shape = (batch, 1, waves)
        frequencies = jax.random.uniform(key_frequencies, shape, jnp.float32, low, high)
        phases = jax.random.uniform(key_phases, shape, jnp.float32, 0, 2 * math.pi)
        steps = jnp.arange(T + 1, dtype=jnp.float32)[:, None, None, None]
        angles = frequencies[None] * steps + phases[None]
        xs = math.sqrt(2 / waves) * jnp.sin(angles).sum(-1)
        return Batch(xs[:-1], Side(targets=xs[1:]))

    train, held_out = drawn(draw)
    mean_cosine = (math.sin(high) - math.sin(low)) / (high - low)
    return Task(
        n_in=1,
        n_out=1,
        objective=objectives.squared_error,
        train=train,
        held_out=held_out,
        baselines={"predict 0": 1.0, "predict the last value": 2 - 2 * mean_cosine},
        record={
            "task": "sine",
            "T": T,
            "waves": waves,
            "shortest": shortest,
            "longest": longest,
        },
    )
