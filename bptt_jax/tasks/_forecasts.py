"""How far forecasts are off, in the unit of the data, and what the simplest ones cost.

MASE is the mean absolute error over that of the seasonal naive forecast of one step in the
training part, each series and each feature by its own (Hyndman and Koehler 2006, "Another
look at measures of forecast accuracy").
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_jax._factory import factory
from bptt_jax.tasks._cuts import Cuts
from bptt_jax.tasks._metrics import OF_DATA
from bptt_jax.tasks._sequences import Sequences
from bptt_jax.types import Metric, Objective, Scale

_AT_A_TIME = 2**18


class Ahead(NamedTuple):
    """What follows windows.

    values: `[..., horizon · O]`, the numbers of one step after those of the other.
    series: int32 `[...]`, which series it is of.
    """

    values: Any
    series: Any


class Figure(NamedTuple):
    """A measure of errors.

    each: `(errors [..., horizon, O], naive [..., 1, O]) -> [...]`, in NumPy and in JAX.
    finish: of their mean: the figure.
    """

    each: Callable[[Any, Any], Any]
    finish: Callable[[float], float] = float


FIGURES = {
    "MAE": Figure(lambda errors, naive: abs(errors).mean((-2, -1))),
    "RMSE": Figure(lambda errors, naive: (errors**2).mean((-2, -1)), math.sqrt),
    "MASE": Figure(lambda errors, naive: (abs(errors) / naive).mean((-2, -1))),
}


def figures_of(
    series: Sequences,
    naive: np.ndarray,
    cuts: Cuts,
    T: int,
    horizon: int,
    season: int | None,
    scale: Scale | None,
) -> tuple[dict[str, Metric], dict[str, float]]:
    """Metrics by their names, with the figures of simple forecasts, and the losses of these.

    Args:
      series: what is predicted, `[M, O]`, as it was given.
      naive: of `naive_of`.
      cuts: the held-out windows.
      season: None: there is none.
      scale: of outputs, `[O]`; None: they are in the unit of the data.
    """
    deviation = np.ones(naive.shape[1]) if scale is None else np.array(scale.deviation)
    simple = {"last value": 1} | ({} if season is None else {"seasonal naive": season})
    means = {
        of: _means(
            {"loss": lambda errors, _: ((errors / deviation) ** 2).sum((-2, -1))}
            | {name: figure.each for name, figure in FIGURES.items()},
            _repeated(series.joined, cuts, T, horizon, back),
            naive,
        )
        for of, back in simple.items()
    }
    metrics = {
        name: Metric(
            _of_outputs(figure, horizon, deviation, naive),
            figure.finish,
            {of: figure.finish(found[name]) for of, found in means.items()},
            "" if name == "MASE" else OF_DATA,
        )
        for name, figure in FIGURES.items()
    }
    return metrics, {of: found["loss"] for of, found in means.items()}


def _of_outputs(
    figure: Figure, horizon: int, deviation: np.ndarray, naive: np.ndarray
) -> Objective:
    """Of standardised outputs, `(ys [..., horizon · O], Ahead) -> [...]`."""
    deviation, naive = deviation.astype(np.float32), naive.astype(np.float32)

    def each(ys, targets: Ahead):
        errors = (ys - targets.values).reshape(*ys.shape[:-1], horizon, -1)
        errors *= jnp.broadcast_to(deviation, errors.shape)
        return figure.each(errors, jnp.asarray(naive)[targets.series][..., None, :])

    return each


def naive_of(series: Sequences, known: np.ndarray, season: int) -> np.ndarray:
    """Mean absolute change over a season, within the training part: float64 `[S, O]`.

    Args:
      series: what is predicted, `[M, O]`, as it was given.
      known: int64 `[S]`, steps of the training part.
      season: steps; 1: the last value is repeated.
    """
    each = [series.joined[b : b + n] for b, n in zip(series.begins, known, strict=True)]
    changes = (a[season:].astype(float) - a[:-season] for a in each)
    return np.stack([np.abs(change).mean(0) for change in changes])


def _means(
    each: dict[str, Callable], pieces: Iterable, naive: np.ndarray
) -> dict[str, float]:
    """Over all windows; of a part where nothing changes MASE is infinite, or NaN."""
    totals, count = dict.fromkeys(each, 0.0), 0
    with np.errstate(divide="ignore", invalid="ignore"):
        for errors, which in pieces:
            count += len(errors)
            for name, of in each.items():
                totals[name] += of(errors, naive[which][:, None]).sum()
    return {name: float(total / count) for name, total in totals.items()}


def _repeated(
    values: np.ndarray, cuts: Cuts, T: int, horizon: int, season: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Errors of the forecast that repeats the last season; of one step: the last value.

    Yields:
      Errors `[n, horizon, O]` of some windows after the other, and their series `[n]`.
    """
    ahead = np.arange(horizon)
    some = max(_AT_A_TIME // (horizon * values.shape[1]), 1)
    for start in range(0, cuts.total, some):
        rows, which = cuts.at(np.arange(start, min(start + some, cuts.total)))
        after = rows[:, None] + T
        found = values[after - season + ahead % season].astype(float)
        yield found - values[after + ahead], which


def scaled_error(errors: np.ndarray, naive: np.ndarray) -> float:
    """MASE of errors `[N, horizon, O]`, by those of the naive forecast `[N, O]`."""
    figure = FIGURES["MASE"]
    with np.errstate(divide="ignore", invalid="ignore"):
        return figure.finish(figure.each(errors, naive[:, None]).mean())


@factory
def of_values(objective: Objective) -> Objective:
    """Of `Ahead` its values alone are compared."""
    return lambda ys, targets: objective(ys, targets.values)


def metrics_of_values(metrics: dict[str, Metric]) -> dict[str, Metric]:
    """Those that are given numbers alone, as metrics of `Ahead`."""
    return {
        name: metric._replace(each=of_values(metric.each))
        for name, metric in metrics.items()
    }
