"""States over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import (
    AMOUNT,
    PALE,
    SIGNED,
    Figure,
    canvas,
    labelled,
    numbers,
)

if TYPE_CHECKING:
    from jaxtyping import Real


def activity(states: Real[ArrayLike, "T H"], *, unit: str = "h") -> Figure:
    """What each unit does over time, as a raster.

    Args:
      states: `[T, H]`. Where some are negative the colours are centred at zero (blue
        below, white at zero, red above). NaN and infinity are grey.
      unit: label of the colours.

    Returns:
      The figure: time across, units downward.

    Raises:
      ValueError: shapes that do not fit.

    >>> from bptt_jax import plots
    >>> figure = plots.activity([[0.5, -1.0], [0.0, 0.25], [1.0, 0.0]], unit="tanh state")
    >>> image = figure.axes[0].images[0]
    >>> image.get_array().shape, tuple(map(float, image.get_clim()))
    ((2, 3), (-1.0, 1.0))
    """
    found = numbers("states", states, "[T, H]", (2,))
    there = np.isfinite(found)
    most = np.abs(found[there]).max(initial=0.0) or 1.0
    signed = (found[there] < 0).any()
    figure, axes = canvas(7.4, 4.2)
    axes.set_facecolor(PALE)
    image = axes.imshow(
        np.ma.array(found, mask=~there).T, aspect="auto", interpolation="nearest",
        cmap=SIGNED if signed else AMOUNT, vmin=-most if signed else 0, vmax=most,
    )  # fmt: skip
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    labelled(axes, "time t, steps", "unit")
    figure.colorbar(image, label=unit)
    return figure
