"""Gradient norms over time, of several parts at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import (
    MANY,
    Figure,
    canvas,
    labelled,
    named,
    numbers,
    strokes,
)

if TYPE_CHECKING:
    from jaxtyping import Real


def flows(
    norms: Mapping[str, Real[ArrayLike, "_T"]],
    *,
    unit: str = r"$\|dL/ds_t\|$",
) -> Figure:
    """How large a gradient is at each step of time, in each recurrent part of a model.

    Args:
      norms: name -> `[T]`, of the gradient with respect to the state after each step, as
        `diagnose.flows` gives them. On a logarithmic axis; zeros and what is not finite are
        left out.
      unit: label of the vertical axis; without one ‖dL/ds_t‖.

    Returns:
      The figure; one line a name.

    Raises:
      ValueError: shapes that do not fit, a negative norm.

    >>> from bptt_jax import plots
    >>> figure = plots.flows({"[0] lstm": [0.1, 0.5], "[1] gru": [0.0, 2.0]})
    >>> [line.get_xydata().tolist() for line in figure.axes[0].lines]
    [[[0.0, 0.1], [1.0, 0.5]], [[1.0, 2.0]]]
    """
    found = {
        name: numbers(f"norms[{name!r}]", each, "[T]", (1,))
        for name, each in named("norms", norms, "[T]").items()
    }
    for name, each in found.items():
        if (each < 0).any():
            least = each[each < 0][0]
            raise ValueError(f"norms[{name!r}]: expected no negative, got {least:g}")
    figure, axes = canvas()
    axes.set_yscale("log")
    for (name, each), stroke in zip(found.items(), strokes()):
        at = np.flatnonzero(np.isfinite(each) & (each > 0))
        mark = "o" if len(at) < MANY else ""
        axes.plot(at, each[at], marker=mark, ms=3, linewidth=1.8, label=name, **stroke)
    axes.xaxis.get_major_locator().set_params(integer=True)
    labelled(axes, "time t, steps", unit)
    return figure
