"""Means over held-out batches, and the figures that are functions of them."""

from collections.abc import Callable
from typing import Any

import jax

from bptt_jax._factory import expect, factory, positive
from bptt_jax.train._step import evaluator
from bptt_jax.types import Layer, Objective, PyTree, Sections, Stream, Task

_AT_A_TIME = 20
LOSS = "loss"


def evaluate(
    task: Task, model: Layer | Sections, params: PyTree, *, batches: int = 1000
) -> dict[str, float]:
    """The loss and the metrics of a task over its held-out batches, in one pass.

    Args:
      task: what it was trained on; `Task.metrics` say what is told.
      model: a layer, or `models.sections`.
      params: of the model, `Run.best.params` for instance.
      batches: at most so many; all, where the held-out part has fewer.

    Returns:
      `loss`, a mean over the steps that count, and each metric by its name.

    Raises:
      ValueError: no step of these batches counts.

    >>> import jax, numpy as np
    >>> from bptt_jax import cells, models, tasks, train
    >>> wave = np.sin(np.arange(300) / 4)
    >>> task = tasks.windows(wave, T=20, horizon=5, batch=16)
    >>> model = models.features((cells.gru(task.n_in, 8),), task.n_out, 8)
    >>> list(train.evaluate(task, model, model.init(jax.random.key(0))))
    ['loss', 'MAE', 'RMSE', 'MASE']
    """
    expect(Task, task=task)
    positive(batches=batches)
    add = evaluation(task, model)
    return figures(task, means(add, task.held_out, params, batches, _AT_A_TIME))


def evaluation(task: Task, model: Layer | Sections) -> Callable:
    """An `evaluator` of the task's held-out batches: of its loss and all its metrics.

    `figures` makes numbers of the means of its sums.

    >>> import jax
    >>> from bptt_jax import cells, models, tasks, train
    >>> task = tasks.adding(batch=4, T=10)
    >>> model = models.features((cells.gru(2, 8),), 1, 8)
    >>> add, params = evaluation(task, model), model.init(jax.random.key(0))
    >>> sums = add(params, None, task.held_out.read(0, 2))
    >>> sorted(sums.losses), int(sums.steps)
    (['loss'], 8)
    """
    each = tuple((name, metric.each) for name, metric in task.metrics.items())
    stream = task.held_out
    return evaluator(
        model, beside(task.objective, each), stream.batch, task.stateful, stream.buckets
    )


@factory
def beside(objective: Objective, each: tuple) -> Callable:
    """`(ys, targets) -> {name: [K, ...]}`, the loss and what metrics are means of."""

    def all_of(ys, targets):
        found = {name: of(ys, targets) for name, of in each}
        return {LOSS: objective(ys, targets)} | found

    return all_of


def means(
    add: Callable, stream: Stream, params: PyTree, at_most: int, some: int
) -> Any:
    """The means over the first batches, some at a time.

    Args:
      add: an `evaluator` of the stream's batches.
    """
    n, sums = min(stream.length or at_most, at_most), None
    for first in range(0, n, some):
        sums = add(params, sums, stream.read(first, min(some, n - first)))
    assert sums is not None
    steps = float(sums.steps)
    if not steps:
        raise ValueError(f"task: no step of its first {n} held-out batches counts")
    return jax.tree.map(lambda total: float(total) / steps, sums.losses)


def figures(task: Task, means: dict[str, Any]) -> dict[str, float]:
    """`loss` and each metric by its name.

    Args:
      task: whose metrics they are.
      means: over the steps that count of what `evaluation` sums up, on the host.

    >>> from bptt_jax import tasks
    >>> from bptt_jax.types import Metric
    >>> task = tasks.adding(batch=4, T=10)
    >>> error = lambda ys, targets: (ys - targets).sum(-1) ** 2
    >>> task = task._replace(metrics={"RMSE": Metric(error, lambda mean: mean**0.5)})
    >>> figures(task, {"loss": 0.25, "RMSE": 0.25})
    {'loss': 0.25, 'RMSE': 0.5}
    """
    found = {
        name: float(metric.finish(means[name])) for name, metric in task.metrics.items()
    }
    return {LOSS: means[LOSS]} | found
