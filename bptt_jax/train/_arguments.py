"""What a training is made of, looked at before anything is read or made."""

import operator
from typing import Any

from bptt_jax import layers
from bptt_jax._factory import expect
from bptt_jax._processes import axis_of
from bptt_jax.types import Estimator, Task


def refuse_unfit(task: Any, model: Any, estimator: Any, seed: Any, mesh: Any) -> None:
    """Raises a `TypeError` that names the first argument of `run` that is none."""
    expect(Task, task=task)
    layers.model_of(model)
    expect(Estimator, estimator=estimator)
    try:
        operator.index(seed)
    except TypeError:
        raise TypeError(f"seed: expected a whole number, got {seed!r}") from None
    if mesh is not None:
        axis_of(mesh)
