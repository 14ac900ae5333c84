"""The loss of one training."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import (
    BLACK,
    BLUE,
    ORANGE,
    Figure,
    canvas,
    labelled,
    level,
    line,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Real


def loss(
    steps: Real[ArrayLike, "N"],
    losses: Real[ArrayLike, "N"],
    *,
    held_out_steps: Real[ArrayLike, "M"] | None = None,
    held_out: Real[ArrayLike, "M"] | None = None,
    marks: dict[str, tuple[float, float]] | None = None,
    baselines: dict[str, float] | None = None,
    unit: str = "loss",
) -> Figure:
    """Training loss over steps, with held-out loss and baselines.

    Args:
      steps: `[N]`.
      losses: `[N]`, of each step; shown with its running mean.
      held_out_steps: `[M]`, where the held-out loss was taken.
      held_out: `[M]`.
      marks: name -> (step, loss), a point each whose number the legend has: what the
        training came to.
      baselines: name -> level, drawn as lines across.
      unit: label of the vertical axis.

    Returns:
      The figure; `figure.savefig(path)` writes it.

    Raises:
      ValueError: shapes that do not fit.

    >>> from bptt_jax import plots
    >>> figure = plots.loss([1, 2, 3], [4.0, 3.0, 2.5], baselines={"5-gram": 2.7},
    ...                     unit="bits per character")
    >>> figure.axes[0].get_ylabel()
    'bits per character'
    """
    xs, ys = line("losses", (steps, losses), ("steps [N]", "losses [N]"))
    at, held = np.empty(0), np.empty(0)
    if held_out is not None and held_out_steps is not None and np.size(held_out):
        pair, forms = (held_out_steps, held_out), ("steps [M]", "losses [M]")
        at, held = line("held_out", pair, forms)
    figure, axes = canvas()
    width = max(1, len(ys) // 50)
    smooth = np.convolve(ys, np.ones(width) / width, "valid")
    axes.plot(xs, ys, color=BLUE, alpha=0.25, linewidth=0.7)
    label = f"training, mean of {width} steps" if width > 1 else "training"
    axes.plot(xs[width - 1 :], smooth, color=BLUE, linewidth=1.6, label=label)
    if len(held):
        axes.plot(at, held, "o-", color=ORANGE, ms=3.5, label="held out")
    points = marks or {}
    for (name, (x, y)), shape in zip(points.items(), itertools.cycle("*Ds")):
        label = f"{name}: {y:.3f} at step {x:,.0f}"
        size = 10 if shape == "*" else 5
        axes.plot([x], [y], shape, color=BLACK, ms=size, zorder=3, label=label)
    for name, y in (baselines or {}).items():
        level(axes, name, y)
    marked = [y for _, y in points.values()]
    _zoom(axes, smooth, np.array([*held, *marked, *(baselines or {}).values()]))
    labelled(axes, "step", unit)
    return figure


def _zoom(
    axes: Axes, smooth: Float[np.ndarray, "N"], others: Float[np.ndarray, "M"]
) -> None:
    """The first losses, which are far above all others, may be out of sight."""
    smooth, others = smooth[np.isfinite(smooth)], others[np.isfinite(others)]
    if len(smooth):
        low = min([*smooth, *others])
        high = max([np.quantile(smooth, 0.98), *others, low])
        room = high - low
        axes.set_ylim(low - 0.06 * room, high + 0.12 * room + 1e-9)
