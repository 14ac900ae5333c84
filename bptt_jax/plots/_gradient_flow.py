"""Gradient norms over time, while training goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LogNorm
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import (
    AMOUNT,
    PALE,
    Figure,
    at_steps,
    canvas,
    edges,
    labelled,
    numbers,
)

if TYPE_CHECKING:
    from jaxtyping import Real


def gradient_flow(
    norms: Real[ArrayLike, "S T"],
    *,
    steps: Real[ArrayLike, "S"] | None = None,
    unit: str = r"$\|dL/dh_t\|$",
) -> Figure:
    """Where in time a gradient lives, over training: a heat map with a logarithmic scale.

    Args:
      norms: `[S, T]`, of the gradient with respect to the state at each time, in each of S
        training steps. Zeros, NaN and infinity are grey.
      steps: `[S]`, rising; without any 0 … S - 1.
      unit: label of the colours; without one ‖dL/dh_t‖.

    Returns:
      The figure: time across, training steps upward.

    Raises:
      ValueError: shapes that do not fit, a negative norm.

    >>> from bptt_jax import plots
    >>> figure = plots.gradient_flow([[0.1, 1.0], [0.0, 2.0]], steps=[0, 100])
    >>> figure.axes[0].collections[0].get_array().mask
    array([[False, False],
           [ True, False]])
    """
    found = numbers("norms", norms, "[S, T]", (2,))
    if (found < 0).any():
        raise ValueError(f"norms: expected no negative, got {found[found < 0][0]:g}")
    rows = at_steps(steps, len(found))
    figure, axes = canvas(7.4, 4.2)
    there = np.isfinite(found) & (found > 0)
    low, high = (found[there].min(), found[there].max()) if there.any() else (0.1, 1)
    if low == high:
        low, high = low / 2, high * 2
    axes.set_facecolor(PALE)
    image = axes.pcolormesh(
        np.arange(found.shape[1] + 1) - 0.5, edges(rows),
        np.ma.array(found, mask=~there), norm=LogNorm(low, high), cmap=AMOUNT,
        rasterized=True,
    )  # fmt: skip
    labelled(axes, "time t, steps", "training step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(rows) == 1:
        axes.set_yticks(rows)
    grey = "grey: 0" if np.isfinite(found).all() else "grey: 0 or not finite"
    figure.colorbar(image, label=unit if there.all() else f"{unit} ({grey})")
    return figure
