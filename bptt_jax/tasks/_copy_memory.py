"""Copy memory: ten symbols, a long silence, the same ten symbols.

    inputs   s_1 … s_10, T - 1 blanks, a marker, 10 blanks        (s_i ~ U{1, …, 8})
    targets  T + 10 blanks, s_1 … s_10                            (blank 0, marker 9)

Hochreiter and Schmidhuber 1997; this form from Arjovsky, Shah and Bengio 2016, "Unitary
evolution recurrent neural networks" (arXiv:1511.06464). Every step counts; without a
memory the best is certainty in the blanks and a guess in the last ten steps,
10 ln 8 / (T + 20) nats a step.
"""

import math

import jax
import jax.numpy as jnp

from bptt_jax import objectives
from bptt_jax._factory import factory, positive
from bptt_jax.tasks._synthetic import drawn
from bptt_jax.types import Batch, Side, Task

_COPIED = 10
_ALPHABET = 8


@factory
def copy_memory(*, batch: int = 50, T: int = 100) -> Task:
    """Copy memory: tokens `[T + 20, B]` of 10 symbols, targets of 9, at every step.

    Args:
      batch: sequences in a batch, B.
      T: steps over which the symbols must be kept; a sequence has T + 20.

    Returns:
      A task with int32 tokens under `softmax_cross_entropy`. Drawing a batch costs
      O(T·B).

    >>> import jax
    >>> task = copy_memory(batch=3, T=30)
    >>> jax.eval_shape(task.train.batch, 0, jax.random.key(0)).inputs.shape
    (50, 3)
    """
    positive(batch=batch, T=T)

    def draw(key):
        shape = (_COPIED, batch)
        copied = jax.random.randint(key, shape, 1, _ALPHABET + 1, jnp.int32)
        blanks = jnp.zeros((T + 2 * _COPIED, batch), jnp.int32)
        marked = blanks.at[T + _COPIED - 1].set(_ALPHABET + 1)
        targets = blanks.at[-_COPIED:].set(copied)
        return Batch(marked.at[:_COPIED].set(copied), Side(targets=targets))

    train, held_out = drawn(draw)
    guess = _COPIED * math.log(_ALPHABET) / (T + 2 * _COPIED)
    return Task(
        n_in=_ALPHABET + 2,
        n_out=_ALPHABET + 1,
        objective=objectives.softmax_cross_entropy,
        train=train,
        held_out=held_out,
        tokens=True,
        baselines={"no memory": guess},
        record={"task": "copy_memory", "T": T},
    )
