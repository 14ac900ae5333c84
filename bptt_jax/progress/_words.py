"""Losses and figures in words."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bptt_jax.types import Task


def _mean(losses: list[float], position: int) -> float:
    del position
    return float(np.mean(losses)) if losses else math.nan


class Unit(NamedTuple):
    """What losses are shown in.

    name: "loss per step".
    updates: `(losses of updates, position of the last) -> number`.
    held_out: what a held-out loss is multiplied by.
    """

    name: str = "loss per step"
    updates: Callable[[list[float], int], float] = _mean
    held_out: float = 1.0


def unit_of(task: Task | None) -> Unit:
    """Of a task without further knowledge: a loss is told as it is."""
    if task is None:
        return Unit("")
    return Unit("loss per step" if task.text is None else "nats per symbol")


def metrics_in_words(
    task: Task, figures: dict[str, float], shown: str = "", *, beside: bool = False
) -> list[str]:
    """The figures of an evaluation, each with its unit.

    Args:
      task: whose metrics they are.
      figures: as `Progress.measured` has them.
      shown: the name of one that is left out, because the loss is told in it.
      beside: with what simple predictors come to.

    >>> from bptt_jax import progress, tasks
    >>> from bptt_jax.types import Metric
    >>> metric = Metric(abs, baselines={"mean": 2.5}, unit="kg")
    >>> task = tasks.adding()._replace(metrics={"MAE": metric})
    >>> progress.metrics_in_words(task, {"MAE": 0.75}, beside=True)
    ['MAE 0.75 (kg); mean 2.5']
    """
    found = []
    for name, metric in task.metrics.items():
        unit = f" ({metric.unit})" if metric.unit else ""
        simple = metric.baselines.items() if beside else ()
        others = "".join(f"; {of} {level:.4g}" for of, level in simple)
        if name != shown and name in figures:
            found.append(f"{name} {figures[name]:.4g}{unit}{others}")
    return found


def of_status(best: tuple[float, int] | None, alive: int, unit: str) -> str:
    """How a sweep does."""
    shown = f", best {best[0]:.4g} {unit}".rstrip() if best else ""
    return f"{alive:,} alive{shown}"


def rates_in_words(rates: dict[str, float]) -> str:
    """`812 steps/s, 52 k tokens/s, 1 % waiting for data`; nothing where there are none."""
    if not rates:
        return ""
    tokens = rates["tokens_per_second"]
    of_tokens = f"{tokens / 1e3:,.0f} k" if tokens >= 1e4 else f"{tokens:,.0f}"
    return (
        f"{rates['updates_per_second']:.1f} steps/s, {of_tokens} tokens/s, "
        f"{rates['data_wait']:.0%} waiting for data"
    )
