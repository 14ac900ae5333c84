"""A forecast beside what came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import (
    BLACK,
    GREY,
    Figure,
    canvas,
    labelled,
    named,
    numbers,
    strokes,
)

if TYPE_CHECKING:
    from jaxtyping import Real


def forecast(
    truth: Real[ArrayLike, "H"],
    forecasts: Mapping[str, Real[ArrayLike, "H"]],
    *,
    history: Real[ArrayLike, "T"] | None = None,
    label: str = "steps after the last one that is known",
    unit: str = "value",
) -> Figure:
    """What came after a series, beside what was predicted.

    Args:
      truth: `[H]`.
      forecasts: name -> `[H]`: of a model, of simple predictors. The legend has the mean
        absolute error of each.
      history: `[T]`, what was known.
      label: of the horizontal axis; the last known step is 0.
      unit: label of the vertical axis.

    Raises:
      ValueError: shapes that do not fit.

    >>> from bptt_jax import plots
    >>> figure = plots.forecast([3.0, 4.0], {"model": [3.5, 4.5]}, history=[1.0, 2.0],
    ...                         unit="passengers")
    >>> figure.axes[0].get_legend_handles_labels()[1]
    ['known', 'what came', 'model: MAE 0.5']
    """
    after = numbers("truth", truth, "[H]", (1,))
    known = np.empty(0) if history is None else numbers("history", history, "[T]", (1,))
    figure, axes = canvas()
    begins = np.arange(1 - len(known), 1)
    if len(known):
        axes.plot(begins, known, color=GREY, linewidth=1.2, label="known")
        axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
    joined = np.concatenate([known[-1:], after])
    ahead = np.arange(1, len(after) + 1)
    at = ahead if not len(known) else np.concatenate([[0], ahead])
    axes.plot(at, joined, color=BLACK, linewidth=1.8, label="what came")
    of = named("forecasts", forecasts, "[H]").items()
    for (name, values), stroke in zip(of, strokes()):
        found = numbers(f"forecasts[{name!r}]", values, "[H]", (1,))
        if found.shape != after.shape:
            raise ValueError(
                f"forecasts[{name!r}]: expected [H] with H = {len(after)}, got shape "
                f"{found.shape}"
            )
        error = np.abs(found - after).mean()
        mark = "o" if len(after) <= 40 else ""
        axes.plot(
            ahead, found, marker=mark, ms=3.5, linewidth=1.4,
            label=f"{name}: MAE {error:.4g}", **stroke,
        )  # fmt: skip
    labelled(axes, label, unit)
    return figure
