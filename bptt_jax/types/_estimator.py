"""A way to get a gradient."""

from typing import NamedTuple, Protocol

from jax import Array

from bptt_jax._factory import record
from bptt_jax.types._batch import Batch
from bptt_jax.types._pytree import PyTree


class Gradient(NamedTuple):
    """What an estimator finds on a batch.

    loss: scalar, the mean over the real steps.
    grads: its gradient, or what is taken for it; like the parameters.
    state: of the estimator, for the next batch.
    steps: scalar, how many real steps the loss is a mean over.
    metrics: scalars by name, what else there is to tell.
    """

    loss: Array
    grads: PyTree
    state: PyTree
    steps: Array
    metrics: dict[str, Array]


class EstimatorInit(Protocol):
    """What is handed to the first batch.

    Args:
      params: of the model.
      batch: one like those to come.

    Returns:
      state, any tree of arrays; `()` where batches do not know of each other.
    """

    def __call__(self, params: PyTree, batch: Batch, /) -> PyTree: ...


class EstimatorGrad(Protocol):
    """The gradient on a batch.

    Args:
      params: of the model.
      state: what the batch before handed on.
      batch: as a stream gives it.
      key: the batch's own, for layers that draw.

    Returns:
      A `Gradient`.
    """

    def __call__(
        self, params: PyTree, state: PyTree, batch: Batch, key: Array, /
    ) -> Gradient: ...


@record
class Estimator(NamedTuple):
    """A way to get a gradient: the waist between models and training.

    init: an `EstimatorInit`, of what is handed from one batch to the next.
    grad: an `EstimatorGrad`.
    """

    init: EstimatorInit
    grad: EstimatorGrad
