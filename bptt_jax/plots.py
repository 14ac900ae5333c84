"""Figures from arrays. Each function returns the figure."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe, Ito (2008): told apart without colour vision
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"


def loss(
    steps: np.ndarray,
    losses: np.ndarray,
    *,
    held_out_steps: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
    baselines: dict[str, float] | None = None,
    unit: str = "loss",
) -> Figure:
    """Training loss over steps, with held-out loss and baselines.

    Args:
      steps: `[N]`.
      losses: `[N]`, of each step; shown with its running mean.
      held_out_steps: `[M]`, where the held-out loss was taken.
      held_out: `[M]`.
      baselines: name -> level, drawn as lines across.
      unit: label of the vertical axis.

    Returns:
      The figure; `figure.savefig(path)` writes it.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = max(1, len(losses) // 50)
    smooth = np.convolve(losses, np.ones(width) / width, "valid")
    axes.plot(steps, losses, color=BLUE, alpha=0.25, linewidth=0.7)
    label = f"training, mean of {width} steps" if width > 1 else "training"
    axes.plot(steps[width - 1 :], smooth, color=BLUE, linewidth=1.6, label=label)
    if held_out is not None and held_out_steps is not None and len(held_out):
        axes.plot(
            held_out_steps, held_out, "o-", color=ORANGE, ms=3.5, label="held out"
        )
    for name, level in (baselines or {}).items():
        axes.axhline(level, color=GREY, linestyle="--", linewidth=1)
        axes.annotate(
            name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            fontsize=8, color=GREY,
        )  # fmt: skip
    shown = [*smooth, *(baselines or {}).values()]
    low, high = min(shown), np.quantile(smooth, 0.98) if len(smooth) else 1.0
    low = min(low, *(held_out if held_out is not None and len(held_out) else [low]))
    high = max(high, *(baselines or {}).values(), low)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.12 * (high - low) + 1e-9)
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
