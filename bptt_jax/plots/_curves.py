"""Named curves, with the spread of their seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import (
    MANY,
    Figure,
    canvas,
    labelled,
    level,
    line,
    named,
    plain_logarithm,
    strokes,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Real


def curves(
    series: Mapping[str, tuple[Real[ArrayLike, "_N"], Real[ArrayLike, "... _N"]]],
    *,
    label: str = "step",
    unit: str = "loss",
    levels: Mapping[str, float] | None = None,
    log: bool = False,
    log_x: bool = False,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Curves: of each the median of its seeds, in a band from the least to the most.

    Args:
      series: name -> `(xs [N], ys [N] or [seeds, N])`. NaN is a gap: a seed is left out
        where it has none. A seed at infinity (diverged) counts in the median, and takes
        the band up to the largest finite value of the figure.
      label: of the horizontal axis, with its unit.
      unit: label of the vertical axis, with its unit.
      levels: name -> height, drawn as dashed lines across.
      log: whether the vertical axis is logarithmic.
      log_x: whether the horizontal axis is.
      limits: of the vertical axis, where curves may leave it.

    Returns:
      The figure; one line a series.

    Raises:
      ValueError: shapes that do not fit.

    >>> import numpy as np
    >>> from bptt_jax import plots
    >>> steps, seeds = np.arange(3), np.array([[3.0, 2.0, 1.0], [5.0, 4.0, np.nan]])
    >>> figure = plots.curves({"lstm": (steps, seeds)}, unit="loss, nats",
    ...                       levels={"predicts the mean": 2.5})
    >>> figure.axes[0].lines[0].get_ydata()
    array([4., 3., 1.])
    """
    form = "xs [N]", "ys [N] or [seeds, N]"
    found = {
        name: line(f"series[{name!r}]", pair, form, (1, 2))
        for name, pair in named("series", series, "(xs, ys)").items()
    }
    figure, axes = canvas()
    finite = [ys[np.isfinite(ys)].max(initial=-np.inf) for _, ys in found.values()]
    for (name, (xs, ys)), stroke in zip(found.items(), strokes()):
        middle, low, high = _spread(np.atleast_2d(ys))
        mark = "o" if len(xs) < MANY else ""
        axes.plot(xs, middle, marker=mark, ms=4, linewidth=1.8, label=name, **stroke)
        if ys.ndim == 2:
            high = np.where(high == np.inf, max(finite), high)
            axes.fill_between(
                xs, low, high, color=stroke["color"], alpha=0.15, linewidth=0
            )
    for name, y in (levels or {}).items():
        level(axes, name, y)
    if log:
        plain_logarithm(axes.yaxis)
    if log_x:
        plain_logarithm(axes.xaxis)
    if limits:
        axes.set_ylim(*limits)
    labelled(axes, label, unit)
    return figure


def _spread(
    ys: Float[np.ndarray, "S N"],
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Median, least and most over the seeds that are there; NaN where none is."""
    found = np.full((3, ys.shape[1]), np.nan)
    there = ~np.isnan(ys)
    for i in np.flatnonzero(there.any(0)):
        each = ys[there[:, i], i]
        found[:, i] = np.median(each), each.min(), each.max()
    return found[0], found[1], found[2]
