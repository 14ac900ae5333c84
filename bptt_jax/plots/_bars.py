"""A few numbers side by side."""

from collections.abc import Mapping

from matplotlib.ticker import FuncFormatter

from bptt_jax.plots._axes import BLUE, Figure, canvas, labelled, named, numbers, short


def bars(values: Mapping[str, float], *, unit: str) -> Figure:
    """A bar for each of a few numbers, which stands beside it.

    Args:
      values: name -> number, from zero up.
      unit: label of the horizontal axis, with its unit.

    Returns:
      The figure; the first name is on top.

    Raises:
      ValueError: a value that is no single number, or below zero.

    >>> from bptt_jax import plots
    >>> figure = plots.bars({"scan": 120.0, "bptt": 32.0}, unit="memory, MB")
    >>> [float(bar.get_width()) for bar in figure.axes[0].patches]
    [120.0, 32.0]
    """
    found = {
        name: float(numbers(f"values[{name!r}]", value, "a number", (0,)))
        for name, value in named("values", values, "number").items()
    }
    for name, value in found.items():
        if not value >= 0:
            raise ValueError(f"values[{name!r}]: expected 0 or more, got {value:g}")
    figure, axes = canvas(6.4, 0.9 + 0.38 * len(found))
    drawn = axes.barh(list(found), list(found.values()), color=BLUE)
    axes.bar_label(drawn, [short(v) for v in found.values()], padding=3)
    axes.set_xlim(0, 1.12 * max(found.values()) or 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
    axes.invert_yaxis()
    labelled(axes, unit, "")
    return figure
