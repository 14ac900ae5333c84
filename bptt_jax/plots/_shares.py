"""Shares, in percent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import (
    Figure,
    canvas,
    labelled,
    line,
    named,
    plain_logarithm,
    spans,
    strokes,
)

if TYPE_CHECKING:
    from jaxtyping import Real


def shares(
    series: Mapping[str, tuple[Real[ArrayLike, "_N"], Real[ArrayLike, "_N"]]],
    *,
    label: str,
    unit: str = "share solved",
) -> Figure:
    """Shares over what was varied: the part of the seeds that solve a task, say.

    Args:
      series: name -> `(xs [N], shares [N])`, shares from 0 to 1; NaN is a gap.
      label: of the horizontal axis, with its unit; logarithmic where the values span two
        decades.
      unit: label of the vertical axis, which goes from 0 to 100 %.

    Returns:
      The figure; one line a series.

    Raises:
      ValueError: shapes that do not fit; a share outside of [0, 1].

    >>> from bptt_jax import plots
    >>> figure = plots.shares({"lstm": ([10, 100], [1.0, 0.25])}, label="lag, steps")
    >>> figure.axes[0].lines[0].get_ydata()
    array([1.  , 0.25])
    """
    found = {}
    for name, pair in named("series", series, "(xs, shares)").items():
        what = f"series[{name!r}]"
        xs, ys = found[name] = line(what, pair, ("xs [N]", "shares [N]"))
        if (ys < 0).any() or (ys > 1).any():
            worst = ys[(ys < 0) | (ys > 1)][0]
            raise ValueError(f"{what}: expected shares from 0 to 1, got {worst:g}")
    figure, axes = canvas()
    for (name, (xs, ys)), stroke in zip(found.items(), strokes()):
        axes.plot(xs, ys, marker="o", ms=5, label=name, clip_on=False, **stroke)
    if spans(np.concatenate([xs for xs, _ in found.values()]), 100):
        plain_logarithm(axes.xaxis)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    labelled(axes, label, unit)
    return figure
