"""Scores over a hyperparameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import GREY, Figure, canvas, colours, labelled, line, spans

if TYPE_CHECKING:
    from jaxtyping import Real


def against(
    xs: Real[ArrayLike, "N"],
    scores: Real[ArrayLike, "N"],
    *,
    label: str,
    unit: str = "loss",
    by: Sequence[str] | None = None,
    maximise: bool = False,
) -> Figure:
    """Scores over one hyperparameter: each run a dot, medians joined by a line.

    Args:
      xs: `[N]`, the hyperparameter's value of each run.
      scores: `[N]`; what is not finite is drawn as a cross at the worst of the others.
      label: of the horizontal axis, logarithmic where the values span two decades.
      unit: label of the vertical axis.
      by: `[N]`, a name for each run; each name gets a line.
      maximise: whether a greater score is better, as an accuracy is.

    Raises:
      ValueError: shapes that do not fit.

    >>> from bptt_jax import plots
    >>> figure = plots.against([1e-4, 1e-3, 1e-2], [0.9, 0.2, float("nan")],
    ...                        label="learning rate", unit="held-out loss, nats")
    >>> figure.axes[0].get_xscale()
    'log'
    """
    x, y = line("scores", (xs, scores), ("xs [N]", "scores [N]"))
    names = np.asarray(by if by is not None else [""] * len(x))
    if names.shape != x.shape:
        raise ValueError(f"by: expected [N] with N = {len(x)}, got {names.shape}")
    figure, axes = canvas()
    if spans(x, 100):
        axes.set_xscale("log")
    fine = np.isfinite(y)
    worst = (y[fine].min() if maximise else y[fine].max()) if fine.any() else 1.0
    if spans(y, 30):
        axes.set_yscale("log")
    for name, colour in zip(dict.fromkeys(names), colours()):
        at = (names == name) & fine
        axes.plot(x[at], y[at], "o", color=colour, ms=4, alpha=0.5)
        levels = np.unique(x[at])
        middle = [np.median(y[at & (x == level)]) for level in levels]
        axes.plot(levels, middle, "-", color=colour, label=name or "median")
        lost = (names == name) & ~fine
        axes.plot(x[lost], [worst] * lost.sum(), "x", color=colour, ms=6)
    if (~fine).any():
        axes.plot([], [], "x", color=GREY, label="diverged")
    labelled(axes, label, unit)
    return figure
