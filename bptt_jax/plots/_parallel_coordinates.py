"""Runs as lines through their hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import (
    GREY,
    Figure,
    canvas,
    named,
    note,
    numbers,
    ranked,
)

if TYPE_CHECKING:
    from jaxtyping import Real


def parallel_coordinates(
    columns: Mapping[str, Sequence],
    scores: Real[ArrayLike, "N"],
    *,
    unit: str = "loss",
    maximise: bool = False,
) -> Figure:
    """Each run a line through its hyperparameters to its score; the best are dark.

    Args:
      columns: name -> `[N]`, numbers (spaced by rank) or names.
      scores: `[N]`; runs that are not finite are left out.
      unit: label of the last axis.
      maximise: whether a greater score is better, as an accuracy is.

    Raises:
      ValueError: shapes that do not fit.

    >>> from bptt_jax import plots
    >>> figure = plots.parallel_coordinates({"lr": [0.1, 0.2], "cell": ["gru", "lstm"]},
    ...                                     [0.5, 0.4], unit="loss, nats")
    >>> [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    ['lr', 'cell', 'loss, nats']
    """
    y = numbers("scores", scores, "[N]", (1,))
    for name, values in named("columns", columns, "[N]").items():
        if len(values) != len(y):
            raise ValueError(
                f"columns[{name!r}]: expected [N] with N = {len(y)}, got {len(values)}"
            )
    figure, axes = canvas(1.6 * (len(columns) + 2), 4.2)
    fine = np.isfinite(y)
    low, high = (y[fine].min(), y[fine].max()) if fine.any() else (0.0, 1.0)
    height = (y - low) / max(high - low, 1e-12)
    places = []
    for i, values in enumerate(columns.values()):
        levels = sorted(set(values))
        at = {v: j / max(1, len(levels) - 1) for j, v in enumerate(levels)}
        places.append([at[v] for v in values])
        every = max(1, len(levels) // 10)
        for v in levels[::every]:
            shown = f"{v:.3g}" if isinstance(v, int | float) else str(v)
            note(axes, shown, (i, at[v]), textcoords="offset points", xytext=(4, 2))
    shades = ranked(maximise)
    order = np.argsort(y if maximise else -y, kind="stable")  # the best are on top
    for k in order[fine[order]]:
        points = [*(place[k] for place in places), height[k]]
        axes.plot(points, color=shades(height[k]), alpha=0.6, linewidth=1.2)
    last = len(columns)
    for level in (0.0, 0.5, 1.0):
        value = low + level * (high - low)
        note(axes, f"{value:.3g}", (last, level), textcoords="offset points",
             xytext=(4, 2))  # fmt: skip
    axes.set_xticks(range(last + 1), [*columns, unit])
    axes.set_yticks([])
    axes.set_xlim(-0.1, last + 0.4)
    axes.vlines(range(last + 1), 0, 1, color=GREY, linewidth=0.8)
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure
