"""Gradient norms over the lag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from bptt_jax.plots._axes import (
    MANY,
    Figure,
    canvas,
    colours,
    labelled,
    named,
    numbers,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Real


def by_lag(
    norms: Mapping[str, Real[ArrayLike, "_K"]],
    *,
    rates: Mapping[str, tuple[int, float]] | None = None,
    unit: str = r"$\|\partial \ell_t / \partial h_{t-k}\|$",
) -> Figure:
    """How a gradient fades, or grows, with the lag it has come back through.

    Args:
      norms: name -> `[K]`, the norm φ_k at each lag k = 0 … K - 1. On a logarithmic axis;
        zeros and NaN are left out.
      rates: name -> `(τ, β)`: a decay fitted from lag τ on, drawn as the dashed line
        φ_τ β^(k - τ). Not every name needs one.
      unit: label of the vertical axis; without one ‖∂ℓ_t/∂h_{t-k}‖.

    Returns:
      The figure; one line a name, and one a rate.

    Raises:
      ValueError: shapes that do not fit, a negative norm, a rate without its norms, a lag
        outside of them.

    >>> from bptt_jax import plots
    >>> figure = plots.by_lag({"elman": [1.0, 0.5, 0.25]}, rates={"elman": (1, 0.5)})
    >>> figure.axes[0].lines[1].get_ydata()
    array([0.5 , 0.25])
    """
    found = {
        name: numbers(f"norms[{name!r}]", each, "[K]", (1,))
        for name, each in named("norms", norms, "[K]").items()
    }
    for name, each in found.items():
        if (each < 0).any():
            least = each[each < 0][0]
            raise ValueError(f"norms[{name!r}]: expected no negative, got {least:g}")
    fitted = {name: _rate(name, rates, found) for name in rates or {}}
    figure, axes = canvas()
    axes.set_yscale("log")
    for (name, each), colour in zip(found.items(), colours()):
        ks = np.flatnonzero(each > 0)
        mark = "o" if len(ks) < MANY else ""
        axes.plot(
            ks, each[ks], marker=mark, ms=3, color=colour, label=name, linewidth=1.8,
            alpha=0.5 if name in fitted else 1,
        )  # fmt: skip
        if name in fitted:
            lag, rate = fitted[name]
            ks = np.arange(lag, len(each))
            axes.plot(
                ks, each[lag] * rate ** (ks - lag), color=colour, linestyle="--",
                linewidth=1.4, label=f"β = {rate:.3g} from lag {lag}",
            )  # fmt: skip
    labelled(axes, "lag k, steps", unit)
    return figure


def _rate(
    name: str, rates, norms: dict[str, Float[np.ndarray, "_K"]]
) -> tuple[int, float]:
    what = f"rates[{name!r}]"
    if name not in norms:
        raise ValueError(f"{what}: expected one of {', '.join(norms)}")
    try:
        lag, rate = rates[name]
    except (TypeError, ValueError):
        raise ValueError(f"{what}: expected (lag, rate), got {rates[name]!r}") from None
    if not 0 <= lag < len(norms[name]):
        raise ValueError(f"{what}: expected a lag below {len(norms[name])}, got {lag}")
    if not (np.isfinite(rate) and rate > 0):
        raise ValueError(f"{what}: expected a rate above 0, got {rate}")
    return int(lag), float(rate)
