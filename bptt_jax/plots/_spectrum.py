"""Eigenvalues in the complex plane."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Circle
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import GREY, Figure, canvas, colours, labelled, named

if TYPE_CHECKING:
    from jaxtyping import Complex, Num

MARKS = ("o", "x", "^", "+", "s", "D")


def spectrum(
    eigenvalues: Mapping[str, Num[ArrayLike, "_N"]], *, unit: str = "λ"
) -> Figure:
    """Eigenvalues, of recurrent matrices or of state Jacobians, with the unit circle.

    What lies inside of the circle fades from step to step, what lies outside grows.

    Args:
      eigenvalues: name -> `[N]`, complex.
      unit: what they are called, in the labels.

    Returns:
      The figure; the legend has each spectral radius ρ.

    Raises:
      ValueError: shapes that do not fit, a value that is not finite.

    >>> from bptt_jax import plots
    >>> figure = plots.spectrum({"at the start": [0.5 + 0.5j, 0.5 - 0.5j]})
    >>> figure.axes[0].get_legend_handles_labels()[1]
    ['at the start, ρ = 0.707']
    """
    found = {}
    for name, each in named("eigenvalues", eigenvalues, "[N]").items():
        found[name] = _complex(f"eigenvalues[{name!r}]", each)
    figure, axes = canvas(5.2, 5.2)
    axes.add_patch(Circle((0, 0), 1, fill=False, color=GREY, linewidth=1))
    axes.axhline(0, color=GREY, linewidth=0.5)
    axes.axvline(0, color=GREY, linewidth=0.5)
    for (name, each), colour, mark in zip(
        found.items(), colours(), itertools.cycle(MARKS)
    ):
        axes.plot(
            each.real, each.imag, mark, color=colour, ms=4.5, alpha=0.8,
            label=f"{name}, ρ = {np.abs(each).max():.3g}",
        )  # fmt: skip
    reach = 1.08 * max(1.0, *(np.abs(each).max() for each in found.values()))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    labelled(axes, f"Re {unit}", f"Im {unit}", legend=False)
    figure.legend(loc="outside upper center", frameon=False, fontsize=9)
    return figure


def _complex(what: str, values: ArrayLike) -> Complex[np.ndarray, "N"]:
    try:
        found = np.asarray(values, complex)
    except (TypeError, ValueError):
        message = f"{what}: expected numbers [N], got {type(values).__name__}"
        raise TypeError(message) from None
    if found.ndim != 1 or not found.size:
        raise ValueError(f"{what}: expected [N], got shape {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(
            f"{what}: expected finite numbers, got {found[~np.isfinite(found)][0]}"
        )
    return found
