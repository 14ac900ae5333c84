"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import SHARE, Figure, canvas, numbers

if TYPE_CHECKING:
    from jaxtyping import Float, Real

NUMBERED = 20
"""Classes up to which each cell has its number, and each class its name."""


def confusion(
    counts: Real[ArrayLike, "C C"],
    *,
    labels: Sequence[Any] | None = None,
    unit: str = "held-out sequences",
) -> Figure:
    """A confusion matrix: a row for each class, a column for what it was taken for.

    Colours are shares of a row; the diagonal is what is right.

    Args:
      counts: `[C, C]`, how many of a class (first axis) were taken for another (second), or
        the sums of their weights.
      labels: `[C]`, the names of the classes; None: their numbers.
      unit: of what there are so many.

    Raises:
      ValueError: shapes that do not fit, or counts below zero.

    >>> from bptt_jax import plots
    >>> figure = plots.confusion([[8, 2], [1, 9]], labels=["cat", "dog"])
    >>> figure.axes[0].get_title()
    '17 of 20 held-out sequences are right (85.0 %)'
    """
    found = numbers("counts", counts, "[C, C]", (2,))
    C = len(found)
    if found.shape != (C, C):
        raise ValueError(f"counts: expected [C, C], got shape {found.shape}")
    if not (found >= 0).all():
        raise ValueError("counts: expected numbers of at least 0")
    names = [str(name) for name in (range(C) if labels is None else labels)]
    if len(names) != C:
        raise ValueError(f"labels: expected {C}, one for each class, got {len(names)}")
    size = float(np.clip(1.6 + 0.42 * C, 4.2, 9.0))
    figure, axes = canvas(size + 1.2, size)
    rows = found.sum(1, keepdims=True)
    shares = np.divide(found, rows, out=np.zeros_like(found), where=rows > 0)
    image = axes.imshow(shares, cmap=SHARE, vmin=0, vmax=1)
    every = -(-C // NUMBERED)
    long = max(map(len, names)) > 3
    axes.set_xticks(
        range(0, C, every), names[::every], rotation=45 if long else 0,
        ha="right" if long else "center", rotation_mode="anchor",
    )  # fmt: skip
    axes.set_yticks(range(0, C, every), names[::every])
    if C <= NUMBERED:
        _write(axes, found, shares)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    right, total = np.trace(found), found.sum()
    share = f" ({right / total:.1%})".replace("%", " %") if total else ""
    axes.set_title(f"{right:,.6g} of {total:,.6g} {unit} are right{share}", fontsize=10)
    figure.colorbar(image, label="share of the true class")
    return figure


def _write(axes: Any, counts: Float[np.ndarray, "C C"], shares: np.ndarray) -> None:
    """The number of each cell that is not empty."""
    for (i, j), n in np.ndenumerate(counts):
        if n:
            colour = "white" if shares[i, j] > 0.55 else "black"
            axes.text(
                j, i, f"{n:.4g}", ha="center", va="center", fontsize=8, color=colour
            )
