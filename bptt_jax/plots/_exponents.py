"""Lyapunov exponents while they settle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import (
    GREY,
    Figure,
    at_steps,
    canvas,
    labelled,
    numbers,
    ranked,
)

if TYPE_CHECKING:
    from jaxtyping import Real

NAMED = 6  # more are named by the first and the last


def exponents(
    values: Real[ArrayLike, "S n"],
    *,
    steps: Real[ArrayLike, "S"] | None = None,
    unit: str = "Lyapunov exponent, 1/step",
) -> Figure:
    """How the estimates of Lyapunov exponents settle, the longer a system is followed.

    Args:
      values: `[S, n]`, n exponents after each of S numbers of steps.
      steps: `[S]`, rising: these numbers; without any 1 … S.
      unit: label of the vertical axis.

    Returns:
      The figure; one line an exponent, its last value in the legend. Above the dashed line
      at zero, neighbouring states part.

    Raises:
      ValueError: shapes that do not fit.

    >>> from bptt_jax import plots
    >>> figure = plots.exponents([[0.2, -0.3], [0.1, -0.4]], steps=[100, 200])
    >>> figure.axes[0].get_legend_handles_labels()[1]
    ['λ1 → 0.1', 'λ2 → -0.4']
    """
    found = numbers("values", values, "[S, n]", (2,))
    rows = np.arange(1.0, len(found) + 1)
    if steps is not None:
        rows = at_steps(steps, len(found))
    n = found.shape[1]
    figure, axes = canvas()
    axes.axhline(0, color=GREY, linestyle="--", linewidth=1)
    shades = ranked()
    for i in range(n):
        told = n <= NAMED or i in (0, n - 1)
        axes.plot(
            rows, found[:, i], color=shades(i / max(1, n - 1)), linewidth=1.4,
            label=f"λ{i + 1} → {found[-1, i]:.3g}" if told else "_",
        )  # fmt: skip
    labelled(axes, "steps followed", unit)
    return figure
