"""What all figures share: canvas, colours, levels, checks."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib import figure as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from jaxtyping import Float, Real

# Okabe, Ito (2008): told apart without colour vision
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
GREY, PALE = "#666666", "#cccccc"
COLOURS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, BLACK)
AMOUNT = "cividis"  # Nuñez, Anderton, Renslow (2018): little is dark
SIGNED, SHARE = "RdBu_r", "Blues"  # zero is white
# what lies on top of another line shows it between its dots
STROKES = ("-", (0, (1, 1)), (0, (5, 1.5)), (0, (4, 1, 1, 1)))

SIZE = (7.0, 4.2)
MANY = 40  # points of a line from which on they are not marked one by one
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Figure(mpl.Figure):
    """A figure which a notebook shows where it is a cell's value."""

    def _repr_png_(self) -> bytes:
        held = io.BytesIO()
        self.savefig(held, format="png", dpi=110)
        return held.getvalue()


def canvas(width: float = SIZE[0], height: float = SIZE[1]) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; no window, no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def colours() -> Iterator[str]:
    """Of series that have names: these in turn, in the order in which they are given."""
    return itertools.cycle(COLOURS)


def strokes() -> Iterator[dict[str, Any]]:
    """Colour and dashes of each line that has a name."""
    for colour, dashes in zip(colours(), itertools.cycle(STROKES)):
        yield dict(color=colour, linestyle=dashes)


def ranked(maximise: bool = False) -> Colormap:
    """Of what is in an order: the best (the lowest, or with `maximise` the highest) is dark,
    and the worst still stands out on white.
    """
    shades = ListedColormap(colormaps[AMOUNT](np.linspace(0, 0.9, 256)), "ranked")
    return shades.reversed() if maximise else shades


def level(axes: Axes, name: str, y: float) -> None:
    """A named line across; its name beside it, where no data are."""
    axes.axhline(y, color=GREY, linestyle="--", linewidth=1)
    note(axes, name, (1, y), xycoords=("axes fraction", "data"), va="center",
         textcoords="offset points", xytext=(4, 0))  # fmt: skip


def note(axes: Axes, text: str, at: tuple[float, float], **where: Any) -> None:
    """A short text which is read on top of lines, too."""
    axes.annotate(
        text, at, fontsize=8, color=GREY, zorder=5,
        path_effects=[Stroke(linewidth=2, foreground="white"), Normal()], **where,
    )  # fmt: skip


def labelled(axes: Axes, label: str, unit: str, legend: bool = True) -> None:
    axes.set_xlabel(label)
    axes.set_ylabel(unit)
    if legend and any(axes.get_legend_handles_labels()[1]):
        axes.legend(frameon=False, fontsize=9)


def spans(values: Real[ArrayLike, "..."], ratio: float) -> bool:
    """Whether values are positive and so far apart that their logarithm is better."""
    v = np.asarray(values, float)
    v = v[np.isfinite(v)]
    return bool(v.size and v.min() > 0 and v.max() / v.min() >= ratio)


def plain_logarithm(axis: Axis) -> None:
    """A logarithmic axis whose ticks are read as numbers: 0.5, 1, 2, 5, 10 k."""
    axes = axis.axes
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    if decades > 5:
        return
    subs = (1, 2, 5) if decades <= 2 else (1, 3)
    axis.set_major_locator(LogLocator(10, subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))


def short(value: float) -> str:
    """`12.5 M` for 12,500,000; below a thousand the number as it is."""
    for size, prefix in PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g}"


def edges(centres: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N+1"]:
    """`[N + 1]`: where the cells around so many centres end."""
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.array([2 * centres[0] - middle[0], *middle, 2 * centres[-1] - middle[-1]])


def named(what: str, series: Mapping[str, Any], form: str) -> Mapping[str, Any]:
    if not isinstance(series, Mapping) or not series:
        got = "none" if isinstance(series, Mapping) else type(series).__name__
        raise ValueError(f"{what}: expected {{name: {form}}}, got {got}")
    return series


def numbers(
    what: str, values: ArrayLike, form: str, ndim: Sequence[int]
) -> Float[np.ndarray, "..."]:
    """Real numbers of one of these ranks, with no axis of length zero."""
    try:
        found = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        message = f"{what}: expected numbers {form}, got {type(values).__name__}"
        raise TypeError(message) from None
    if found.ndim not in ndim or not found.size:
        raise ValueError(f"{what}: expected {form}, got shape {found.shape}")
    return found


def line(
    what: str, pair: Any, forms: tuple[str, str], ndim: Sequence[int] = (1,)
) -> tuple[Float[np.ndarray, "N"], Float[np.ndarray, "*S N"]]:
    """`(xs [N], ys [..., N])`."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(
            f"{what}: expected ({forms[0]}, {forms[1]}), got {_told(pair)}"
        )
    xs = numbers(what, pair[0], forms[0], (1,))
    ys = numbers(what, pair[1], forms[1], ndim)
    if ys.shape[-1] != len(xs):
        raise ValueError(
            f"{what}: expected {forms[0]} and {forms[1]}, got shapes {xs.shape} and "
            f"{ys.shape}"
        )
    return xs, ys


def at_steps(steps: Real[ArrayLike, "{n}"] | None, n: int) -> Float[np.ndarray, "{n}"]:
    """`[n]`, rising; without any the first ones."""
    if steps is None:
        return np.arange(n, dtype=float)
    found = numbers("steps", steps, f"[S] with S = {n}", (1,))
    if len(found) != n:
        raise ValueError(f"steps: expected [S] with S = {n}, got shape {found.shape}")
    if not (np.diff(found) > 0).all():
        raise ValueError("steps: expected rising numbers")
    return found


def _told(what: Any) -> str:
    if isinstance(what, tuple | list):
        return f"{type(what).__name__} of {len(what)}"
    return type(what).__name__
