"""Scores over two hyperparameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import PALE, Figure, canvas, labelled, line, ranked

if TYPE_CHECKING:
    from jaxtyping import Real


def heat_map(
    xs: Real[ArrayLike, "N"],
    ys: Real[ArrayLike, "N"],
    scores: Real[ArrayLike, "N"],
    *,
    labels: tuple[str, str],
    unit: str = "loss",
    maximise: bool = False,
) -> Figure:
    """Medians of scores over two hyperparameters; the best are dark.

    A cell without a finite score is grey.

    Args:
      xs, ys: `[N]`, two hyperparameters of each run.
      scores: `[N]`.
      labels: of the two axes.
      unit: label of the colours.
      maximise: whether a greater score is better, as an accuracy is.

    Raises:
      ValueError: shapes that do not fit.

    >>> from bptt_jax import plots
    >>> figure = plots.heat_map([1, 1, 2, 2], [8, 16, 8, 16], [0.4, 0.3, 0.2, 0.1],
    ...                         labels=("layers", "units"), unit="loss, nats")
    >>> figure.axes[0].images[0].get_array().shape
    (2, 2)
    """
    x, score = line("scores", (xs, scores), ("xs [N]", "scores [N]"))
    y, _ = line("scores", (ys, scores), ("ys [N]", "scores [N]"))
    figure, axes = canvas(6.2, 4.6)
    across, up = np.unique(x), np.unique(y)
    values = np.full((len(up), len(across)), np.nan)
    for j, i in np.ndindex(values.shape):
        each = score[(x == across[i]) & (y == up[j]) & np.isfinite(score)]
        values[j, i] = np.median(each) if len(each) else np.nan
    axes.set_facecolor(PALE)
    image = axes.imshow(values, origin="lower", aspect="auto", cmap=ranked(maximise))
    every = -(-len(across) // 6)
    axes.set_xticks(
        range(0, len(across), every),
        [f"{x:.2g}" if x < 1 else f"{x:.3g}" for x in across[::every]],
    )
    axes.set_yticks(range(len(up)), [f"{y:.3g}" for y in up])
    labelled(axes, *labels)
    figure.colorbar(image, label=unit)
    return figure
