"""The adding problem: remember two of many numbers.

    x_t = (u_t, m_t),  u_t ~ U[0, 1),  m_t = 1 at one step of each half, else 0
    y   = Σ_t m_t u_t,  read at the last step

Hochreiter and Schmidhuber 1997, "Long short-term memory", experiment 4, in the form of
Arjovsky, Shah and Bengio 2016 (arXiv:1511.06464). A sum of two uniform numbers has mean
1 and variance 1/6: what predicting 1 costs.
"""

import jax
import jax.numpy as jnp

from bptt_jax import objectives
from bptt_jax._factory import factory, positive
from bptt_jax.tasks._synthetic import drawn
from bptt_jax.types import Batch, Side, Task, Weighted


@factory
def adding(*, batch: int = 50, T: int = 100) -> Task:
    """The adding problem: inputs `[T, B, 2]`, the sum at the last step, `[T, B, 1]`.

    Args:
      batch: sequences in a batch, B.
      T: steps, at least 2 (one marker in each half).

    Returns:
      A task with float32 inputs and `Weighted` targets under `squared_error`. Drawing a
      batch costs O(T·B).

    >>> import jax
    >>> task = adding(batch=3, T=8)
    >>> jax.eval_shape(task.train.batch, 0, jax.random.key(0)).inputs.shape
    (8, 3, 2)
    """
    positive(batch=batch, T=T)
    if T < 2:
        raise ValueError(f"adding: T must be at least 2 (a marker a half), got {T}")
    half = T // 2

    def draw(key):
        key_values, key_first, key_second = jax.random.split(key, 3)
        values = jax.random.uniform(key_values, (T, batch), jnp.float32)
        first = jax.random.randint(key_first, (batch,), 0, half, jnp.int32)
        second = jax.random.randint(key_second, (batch,), half, T, jnp.int32)
        steps = jnp.arange(T, dtype=jnp.int32)[:, None]
        marked = (steps == first[None]) | (steps == second[None])
        markers = marked.astype(jnp.float32)
        total = jnp.sum(values * markers, 0)
        targets = jnp.broadcast_to(total[:, None], (T, batch, 1))
        weights = objectives.at_last_step(jnp.ones((T, batch), bool))
        side = Side(targets=Weighted(targets, weights))
        return Batch(jnp.stack([values, markers], -1), side)

    train, held_out = drawn(draw)
    return Task(
        n_in=2,
        n_out=1,
        objective=objectives.squared_error,
        train=train,
        held_out=held_out,
        baselines={"predict 1": 1 / 6},
        record={"task": "adding", "T": T},
    )
