"""What memory costs in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from bptt_jax.plots._axes import (
    GREY,
    Figure,
    canvas,
    colours,
    labelled,
    line,
    named,
    note,
    plain_logarithm,
    spans,
)

if TYPE_CHECKING:
    from jaxtyping import Real

FORM = "memory [N]", "time [N]"


def memory_time(
    series: Mapping[str, tuple[Real[ArrayLike, "_N"], Real[ArrayLike, "_N"]]],
    *,
    theory: Mapping[str, tuple[Real[ArrayLike, "_N"], Real[ArrayLike, "_N"]]]
    | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    label: str = "temporary memory, bytes",
    unit: str = "time, relative",
) -> Figure:
    """Time against memory: ways to one gradient, each a point or a curve of settings.

    Args:
      series: name -> `(memory [N], time [N])`, both above zero.
      theory: the same for what is computed rather than measured; dashed, without dots.
      notes: name -> `[N]`, a short text beside each dot of a series.
      label: of the horizontal axis, with its unit.
      unit: label of the vertical axis, with its unit.

    Returns:
      The figure. An axis whose values span a factor of eight is logarithmic.

    Raises:
      ValueError: shapes that do not fit, what is not above zero, a note without its dot.

    >>> from bptt_jax import plots
    >>> figure = plots.memory_time({"bptt": ([12e6], [1.0]),
    ...                             "checkpointed": ([0.2e6, 0.5e6], [2.1, 1.6])},
    ...                            notes={"checkpointed": ["10 states", "50"]},
    ...                            unit="time of a gradient, that of bptt = 1")
    >>> figure.axes[0].get_xscale(), figure.axes[0].get_yscale()
    ('log', 'linear')
    """
    found = _positive("series", series)
    computed = _positive("theory", theory) if theory else {}
    for name, texts in (notes or {}).items():
        expected = len(found[name][0]) if name in found else None
        if expected != len(texts):
            expected = f"{expected} texts" if expected else f"one of {', '.join(found)}"
            raise ValueError(f"notes[{name!r}]: expected {expected}, got {len(texts)}")
    figure, axes = canvas(7.4, 4.6)
    for (name, (xs, ys)), colour in zip(found.items(), colours()):
        path = "o-" if len(xs) > 1 else "o"
        axes.plot(xs, ys, path, color=colour, label=name, ms=5, linewidth=1)
        for x, y, text in zip(xs, ys, (notes or {}).get(name, ())):
            note(axes, text, (x, y), textcoords="offset points", xytext=(4, 5))
    for (name, (xs, ys)), dashes in zip(computed.items(), ("--", ":", "-.") * 9):
        axes.plot(xs, ys, linestyle=dashes, color=GREY, label=name, linewidth=1)
    shown = [*found.values(), *computed.values()]
    for i, axis in enumerate((axes.xaxis, axes.yaxis)):
        if spans([v for pair in shown for v in pair[i]], 8):
            plain_logarithm(axis)
    labelled(axes, label, unit)
    return figure


def _positive(what: str, series: Mapping) -> dict:
    found = {}
    for name, pair in named(what, series, "(memory, time)").items():
        found[name] = line(f"{what}[{name!r}]", pair, FORM)
        for each in found[name]:
            if not (each > 0).all():
                message = f"{what}[{name!r}]: expected numbers above 0"
                raise ValueError(f"{message}, got {each[~(each > 0)][0]:g}")
    return found
