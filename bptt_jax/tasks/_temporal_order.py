"""Temporal order: in which order did two symbols come, long ago?

    x_t    one of four distractors, but A or B at p_0 ~ U[T/10, 2T/10)
                                        and at p_1 ~ U[5T/10, 6T/10)
    class  AA, AB, BA or BB, read at the last step

Hochreiter and Schmidhuber 1997, experiment 6a, with the positions of the code of
Pascanu, Mikolov and Bengio 2013 (arXiv:1211.5063). Chance is ln 4.
"""

import math

import jax
import jax.numpy as jnp

from bptt_jax import objectives
from bptt_jax._factory import factory, positive
from bptt_jax.tasks._synthetic import drawn
from bptt_jax.types import Batch, Side, Task, Weighted


@factory
def temporal_order(*, batch: int = 20, T: int = 50) -> Task:
    """Temporal order: tokens `[T, B]` (A 0, B 1, distractors 2 … 5), four classes.

    Args:
      batch: sequences in a batch, B.
      T: steps, at least 10.

    Returns:
      A task with int32 tokens and `Weighted` targets `[T, B]` (first·2 + second, which
      counts at the last step) under `softmax_cross_entropy`. Drawing costs O(T·B).

    >>> import jax
    >>> task = temporal_order(batch=3, T=20)
    >>> jax.eval_shape(task.train.batch, 0, jax.random.key(0)).inputs.shape
    (20, 3)
    """
    positive(batch=batch, T=T)
    if T < 10:
        raise ValueError(f"temporal_order: T must be at least 10, got {T}")

    def draw(key):
        key_noise, key_symbols, key_first, key_second = jax.random.split(key, 4)
        xs = jax.random.randint(key_noise, (T, batch), 2, 6, jnp.int32)
        symbols = jax.random.randint(key_symbols, (2, batch), 0, 2, jnp.int32)
        first = jax.random.randint(key_first, (batch,), T // 10, 2 * T // 10)
        second = jax.random.randint(key_second, (batch,), 5 * T // 10, 6 * T // 10)
        rows = jnp.arange(batch)
        xs = xs.at[first, rows].set(symbols[0]).at[second, rows].set(symbols[1])
        targets = jnp.broadcast_to(2 * symbols[0] + symbols[1], (T, batch))
        weights = objectives.at_last_step(jnp.ones((T, batch), bool))
        return Batch(xs, Side(targets=Weighted(targets, weights)))

    train, held_out = drawn(draw)
    return Task(
        n_in=6,
        n_out=4,
        objective=objectives.softmax_cross_entropy,
        train=train,
        held_out=held_out,
        tokens=True,
        baselines={"chance": math.log(4)},
        record={"task": "temporal_order", "T": T},
    )
