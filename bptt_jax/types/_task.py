"""What is to be learnt."""

from typing import NamedTuple, Protocol

from jax import Array

from bptt_jax._factory import record
from bptt_jax.types._pytree import PyTree
from bptt_jax.types._stream import Stream


class Objective(Protocol):
    """The losses of steps, see `bptt_jax.objectives`.

    Args:
      ys: outputs, `[K, ..., O]`.
      targets: what they are compared with, leaves `[K, ...]`.

    Returns:
      losses `[K, ...]`, one of each step and example; in nats where it is a
      cross-entropy.
    """

    def __call__(self, ys: Array, targets: PyTree, /) -> Array: ...


@record
class Task(NamedTuple):
    """What is to be learnt.

    n_in: features of an input, or how many symbols there are where `symbols` is given.
    n_out: outputs of each step.
    objective: an `Objective`.
    train, held_out: streams; the second is read from its start at each evaluation.
    tokens: whether inputs are symbols (integers `[T, ...]`) rather than features.
    stateful: whether consecutive batches continue each other (truncated BPTT).
    symbols: text of each symbol, where a model of the task can write text.
    baselines: name of a simple predictor -> its loss per step on held-out data.
    record: what identifies the data (hash, versions), kept with a run.
    """

    n_in: int
    n_out: int
    objective: Objective
    train: Stream
    held_out: Stream
    tokens: bool = False
    stateful: bool = False
    symbols: tuple | None = None
    baselines: dict = {}
    record: dict = {}
