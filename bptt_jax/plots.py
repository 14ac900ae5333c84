"""Figures from arrays. Each function returns the figure."""

import itertools

import numpy as np
from matplotlib import colormaps
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
    figure, axes = _axes(7, 4.2)
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
    return figure


def against(
    xs: list[float],
    scores: list[float],
    *,
    label: str,
    unit: str = "loss",
    by: list[str] | None = None,
) -> Figure:
    """Scores over one hyperparameter: each run a dot, medians joined by a line.

    Args:
      xs: `[N]`, the hyperparameter's value of each run.
      scores: `[N]`; what is not finite is drawn as a cross at the top.
      label: of the horizontal axis, logarithmic where the values span two decades.
      unit: label of the vertical axis.
      by: `[N]`, a name for each run; each name gets a line.
    """
    figure, axes = _axes(7, 4.2)
    x, y = np.asarray(xs, float), np.asarray(scores, float)
    names = np.asarray(by if by is not None else [""] * len(x))
    if x.min() > 0 and x.max() / x.min() >= 100:
        axes.set_xscale("log")
    fine = np.isfinite(y)
    top = y[fine].max() if fine.any() else 1.0
    if fine.any() and y[fine].min() > 0 and top / y[fine].min() >= 30:
        axes.set_yscale("log")
    for name, colour in zip(dict.fromkeys(names), _cycle(), strict=False):
        at = (names == name) & fine
        axes.plot(x[at], y[at], "o", color=colour, ms=4, alpha=0.5)
        levels = np.unique(x[at])
        middle = [np.median(y[at & (x == level)]) for level in levels]
        axes.plot(levels, middle, "-", color=colour, label=name or "median")
        lost = (names == name) & ~fine
        axes.plot(x[lost], [top] * lost.sum(), "x", color=colour, ms=6)
    if (~fine).any():
        axes.plot([], [], "x", color=GREY, label="diverged")
    axes.set_xlabel(label)
    axes.set_ylabel(unit)
    axes.legend(frameon=False)
    return figure


def heat_map(
    xs: list[float],
    ys: list[float],
    scores: list[float],
    *,
    labels: tuple[str, str],
    unit: str = "loss",
) -> Figure:
    """Medians of scores over two hyperparameters; a cell without a finite one is grey.

    Args:
      xs, ys: `[N]`, two hyperparameters of each run.
      scores: `[N]`.
      labels: of the two axes.
      unit: label of the colours.
    """
    figure, axes = _axes(6.2, 4.6)
    across, up = sorted(set(xs)), sorted(set(ys))
    values = np.full((len(up), len(across)), np.nan)
    for j, y in enumerate(up):
        for i, x in enumerate(across):
            each = np.array([s for a, b, s in zip(xs, ys, scores, strict=True)
                             if (a, b) == (x, y)])  # fmt: skip
            finite = each[np.isfinite(each)]
            values[j, i] = np.median(finite) if len(finite) else np.nan
    axes.set_facecolor("#cccccc")
    image = axes.imshow(values, origin="lower", aspect="auto", cmap="cividis_r")
    every = max(1, len(across) // 8)
    axes.set_xticks(range(0, len(across), every), [f"{x:.2g}" for x in across[::every]])
    axes.set_yticks(range(len(up)), [f"{y:.2g}" for y in up])
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    figure.colorbar(image, label=unit)
    return figure


def parallel_coordinates(
    columns: dict[str, list], scores: list[float], *, unit: str = "loss"
) -> Figure:
    """Each run a line through its hyperparameters to its score; the best are dark.

    Args:
      columns: name -> `[N]`, numbers (spaced by rank) or names.
      scores: `[N]`; runs that are not finite are left out.
      unit: label of the last axis.
    """
    figure, axes = _axes(1.6 * (len(columns) + 2), 4.2)
    y = np.asarray(scores, float)
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
            axes.annotate(shown, (i, at[v]), textcoords="offset points", xytext=(4, 2),
                          fontsize=8, color=GREY)  # fmt: skip
    order = np.argsort(-np.where(fine, y, np.inf))
    colours = colormaps["cividis"]
    for k in order[~np.isin(order, np.flatnonzero(~fine))]:
        points = [*(place[k] for place in places), height[k]]
        axes.plot(points, color=colours(height[k]), alpha=0.6, linewidth=1.2)
    last = len(columns)
    for level in (0.0, 0.5, 1.0):
        value = low + level * (high - low)
        axes.annotate(f"{value:.3g}", (last, level), textcoords="offset points",
                      xytext=(4, 2), fontsize=8, color=GREY)  # fmt: skip
    axes.set_xticks(range(last + 1), [*columns, unit])
    axes.set_yticks([])
    axes.set_xlim(-0.1, last + 0.4)
    axes.vlines(range(last + 1), 0, 1, color=GREY, linewidth=0.8)
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure


def _axes(width: float, height: float):
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _cycle():
    return itertools.cycle((BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9"))
