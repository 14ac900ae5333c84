"""Errors of predictions, over what was predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import BLACK, BLUE, ORANGE, Figure, canvas, labelled, line

if TYPE_CHECKING:
    from jaxtyping import Real

BINS = 20
"""Of as many predictions each, whose mean error is drawn."""


def residuals(
    predictions: Real[ArrayLike, "N"],
    truth: Real[ArrayLike, "N"],
    *,
    unit: str = "value",
) -> Figure:
    """What came less what was predicted, over what was predicted.

    Around zero with no shape is as good as it gets; a slope or a bow is something that the
    model could still learn. The line is the mean error of neighbours.

    Args:
      predictions, truth: `[N]`.
      unit: of both.

    Raises:
      ValueError: shapes that do not fit.

    >>> from bptt_jax import plots
    >>> figure = plots.residuals([1.0, 2.0, 3.0], [1.5, 2.0, 2.5], unit="kg")
    >>> figure.axes[0].get_ylabel()
    'truth less prediction, kg'
    """
    forms = ("predictions [N]", "truth [N]")
    xs, ys = line("residuals", (predictions, truth), forms)
    errors = ys - xs
    fine = np.isfinite(errors)
    xs, errors = xs[fine], errors[fine]
    figure, axes = canvas()
    size = float(np.clip(60 / max(len(xs), 1) ** 0.35, 3, 18))
    axes.scatter(xs, errors, s=size, color=BLUE, alpha=0.45, linewidths=0)
    axes.axhline(0, color=BLACK, linewidth=1)
    if len(xs) >= 4 * BINS:
        each = np.array_split(np.argsort(xs, kind="stable"), BINS)
        middle = [xs[some].mean() for some in each]
        means = [errors[some].mean() for some in each]
        axes.plot(middle, means, color=ORANGE, linewidth=1.8, label="mean error")
    labelled(axes, f"prediction, {unit}", f"truth less prediction, {unit}")
    if len(xs):
        rmse, bias = np.sqrt((errors**2).mean()), errors.mean()
        title = f"{len(xs):,} predictions: RMSE {rmse:.4g}, mean error {bias:.3g}"
        axes.set_title(title, fontsize=10)
    return figure
