"""Biased coins: how far back does a learner look? The optimum is known for each answer.

    x_t ~ Bernoulli(1/2)
    P(y_t = 1) = 1/2 + x_{t-t1} / 2 - x_{t-t2} / 4

"Add" of Pitis 2016 ("Recurrent neural networks in TensorFlow I") and Marschall, Cho and
Savin 2020 (arXiv:1907.02649). The best cross-entropy in nats is 0.6616 for one who knows
nothing, 0.6277 with x_{t-t2} alone, 0.5192 with x_{t-t1} alone and 0.4545 with both.
"""

import itertools
import math

import jax
import jax.numpy as jnp

from bptt_jax import objectives
from bptt_jax._factory import factory, positive
from bptt_jax.tasks._synthetic import drawn
from bptt_jax.types import Batch, Side, Task, Weighted


@factory
def coin(*, batch: int = 64, T: int = 40, t1: int = 3, t2: int = 8) -> Task:
    """Biased coins: inputs `[T, B, 1]` of zeros and ones, targets `[T, B, 1]` alike.

    The coins before the first step have been thrown, too, but are not shown. So that the
    baselines are exact, those steps count that have both causes in sight: from
    max(t1, t2) on; in a shorter sequence, a window too short to see that far, the last
    step alone.

    Args:
      batch: sequences in a batch, B.
      T: steps.
      t1: lag of the cause that makes y likelier.
      t2: lag of the one that makes it less likely; another than t1.

    Returns:
      A task with float32 inputs and `Weighted` targets under `sigmoid_cross_entropy`.
      Drawing a batch costs O(T·B).

    >>> {name: round(nats, 4) for name, nats in coin().baselines.items()}
    {'nothing': 0.6616, 'only t2': 0.6277, 'only t1': 0.5192, 'both': 0.4545}
    """
    positive(batch=batch, T=T, t1=t1, t2=t2)
    if t1 == t2:
        raise ValueError(f"coin: t1 and t2 must be different lags, got {t1} and {t2}")
    unseen = max(t1, t2)

    def draw(key):
        key_xs, key_ys = jax.random.split(key)
        shape = (unseen + T, batch, 1)
        xs = jax.random.bernoulli(key_xs, 0.5, shape).astype(jnp.float32)
        cause1, cause2 = (xs[unseen - t :][:T] for t in (t1, t2))
        p = 0.5 + 0.5 * cause1 - 0.25 * cause2
        ys = jax.random.uniform(key_ys, p.shape, jnp.float32) < p
        counts = jnp.arange(T) >= min(unseen, T - 1)
        weights = jnp.broadcast_to(counts[:, None], (T, batch)).astype(jnp.float32)
        targets = Weighted(ys.astype(jnp.float32), weights)
        return Batch(xs[unseen:], Side(targets=targets))

    train, held_out = drawn(draw)
    return Task(
        n_in=1,
        n_out=1,
        objective=objectives.sigmoid_cross_entropy,
        train=train,
        held_out=held_out,
        baselines=_baselines(),
        record={"task": "coin", "T": T, "t1": t1, "t2": t2},
    )


def _baselines() -> dict[str, float]:
    half = (0.5,)
    seen = (0.0, 1.0)
    return {
        "nothing": _mean_entropy(half, half),
        "only t2": _mean_entropy(half, seen),
        "only t1": _mean_entropy(seen, half),
        "both": _mean_entropy(seen, seen),
    }


def _mean_entropy(causes1: tuple, causes2: tuple) -> float:
    """Over equally likely causes; one that is not seen stands at its mean."""
    ps = [0.5 + 0.5 * a - 0.25 * b for a, b in itertools.product(causes1, causes2)]
    nats = [-sum(q * math.log(q) for q in (p, 1 - p) if q) for p in ps]
    return sum(nats) / len(nats)
