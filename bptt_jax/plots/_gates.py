"""Histograms of gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import BLUE, ORANGE, Figure, canvas, named, numbers

if TYPE_CHECKING:
    from jaxtyping import Float, Real

ROW = 4  # gates side by side
SATURATED = 0.1  # of the range, at either end


def gates(
    histograms: Mapping[
        str, tuple[Real[ArrayLike, "_edges"], Real[ArrayLike, "_shares"]]
    ],
) -> Figure:
    """Where in their range the gates of a recurrent part are: a histogram for each.

    Bars in the lowest and in the highest tenth of the range, where a gate is saturated, have
    another colour, and their shares stand above.

    Args:
      histograms: gate -> `(edges [n + 1], shares [n])`, as a `diagnose.GateUse` has them.

    Returns:
      The figure; values across, shares upward.

    Raises:
      ValueError: shapes that do not fit, edges that do not rise, a share below zero.

    >>> from bptt_jax import plots
    >>> figure = plots.gates({"f": ([0, 0.1, 0.9, 1], [0.2, 0.5, 0.3])})
    >>> figure.axes[0].get_title()
    'f: 20 % low, 30 % high'
    """
    found = {
        name: _checked(f"histograms[{name!r}]", pair)
        for name, pair in named("histograms", histograms, "(edges, shares)").items()
    }
    rows = -(-len(found) // ROW)
    columns = min(ROW, len(found))
    figure, first = canvas(1.0 + 2.1 * columns, 0.6 + 2.0 * rows)
    first.remove()
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, (name, pair) in zip(grid.flat, found.items()):
        _draw(axes, name, *pair)
    for axes in grid.flat[len(found) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel("share of steps and units")
    return figure


def _draw(
    axes: Axes,
    name: str,
    edges: Float[np.ndarray, "edges"],
    shares: Float[np.ndarray, "n"],
) -> None:
    reach = SATURATED * (edges[-1] - edges[0]) + 1e-6
    low, high = edges[1:] <= edges[0] + reach, edges[:-1] >= edges[-1] - reach
    colours = np.where(low | high, ORANGE, BLUE)
    axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=list(colours))
    told = (f"{100 * shares[some].sum():.0f} %" for some in (low, high))
    axes.set_title("{}: {} low, {} high".format(name, *told), fontsize=9)
    axes.set_xlim(edges[0], edges[-1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_xlabel(f"value of {name}")
    axes.spines[["top", "right"]].set_visible(False)


def _checked(
    what: str, pair: tuple[ArrayLike, ArrayLike]
) -> tuple[Float[np.ndarray, "edges"], Float[np.ndarray, "n"]]:
    form = "(edges [n + 1], shares [n])"
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"{what}: expected {form}, got {type(pair).__name__}")
    edges, shares = (numbers(what, a, form, (1,)) for a in pair)
    if len(edges) != len(shares) + 1:
        raise ValueError(
            f"{what}: expected {form}, got shapes {edges.shape} and {shares.shape}"
        )
    if not (np.diff(edges) > 0).all():
        raise ValueError(f"{what}: expected rising edges")
    if not (shares >= 0).all():
        raise ValueError(f"{what}: expected shares of at least 0")
    return edges, shares
