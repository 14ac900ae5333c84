"""From norms by lag to a window: how fast the gradient falls, and what a cut leaves out.

With φ_k as of `by_lag`, and φ_{k+1} ≤ β φ_k assumed from lag τ on,

    (1)  E(K) = Σ_{k ≥ K} φ_k  ≤  Σ_{K ≤ k < τ} φ_k + φ_{max(K,τ)} / (1 - β)
    (2)  |g| ≥ max_K (σ_K - E(K))₊               g: the sum over all lags
    (3)  δ(K) = E(K) / that                      the relative bias of K lags, k < K

E bounds what lags of K and more add to Σ_k ∂ℓ_t/∂s_{t-k}: the gradient of a bias that is
added to the state. For a weight it is times the largest norm of what the weight is
multiplied with.

Aicher, Foti, Fox (2019), "Adaptively truncating backpropagation through time to control
gradient bias".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int32

FLOOR = -50.0  # of log φ: below it rounding is all there is


def _logs(norms: Float[Array, "n"]) -> tuple[Float[Array, "n"], Bool[Array, "n"]]:
    """log φ, and which of them are to be believed."""
    fine = norms > jnp.exp(FLOOR).astype(norms.dtype)
    return jnp.log(jnp.where(fine, norms, jnp.ones_like(norms))), fine


def fitted_rate(norms: Float[Array, "n"], start: int = 0) -> Float[Array, ""]:
    """β by least squares: the slope of log φ_k over k ≥ start.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import diagnose
    >>> round(float(diagnose.fitted_rate(0.9 ** jnp.arange(20.0))), 3)
    0.9
    """
    logs, fine = _logs(norms[start:])
    weight = fine.astype(norms.dtype)
    k = jnp.arange(logs.shape[0], dtype=norms.dtype)
    count = weight.sum()
    k = k - (k * weight).sum() / count
    return jnp.exp((k * weight * logs).sum() / (k * k * weight).sum())


def largest_rate(norms: Float[Array, "n"], start: int = 0) -> Float[Array, ""]:
    """β as the largest mean rate from lag `start` to any later one: the most careful."""
    logs, fine = _logs(norms[start:])
    k = jnp.arange(1, logs.shape[0], dtype=norms.dtype)
    slopes = (logs[1:] - logs[0]) / k
    return jnp.exp(jnp.where(fine[1:], slopes, -jnp.inf).max())


def quantile_rate(
    norms: Float[Array, "n"], start: int = 0, quantile: float = 0.95
) -> Float[Array, ""]:
    """β as a quantile of the mean rates between all pairs of lags from `start` on."""
    logs, fine = _logs(norms[start:])
    i, j = jnp.triu_indices(logs.shape[0], 1)
    slopes = (logs[j] - logs[i]) / (j - i).astype(norms.dtype)
    slopes = jnp.where(fine[i] & fine[j], slopes, jnp.nan)
    return jnp.exp(jnp.nanquantile(slopes, quantile))


def remainder(
    norms: Float[Array, "n"], rate: Float[Array, ""], start: int = 0
) -> Float[Array, "n"]:
    """E(K) of (1) for K = 0 … n - 1; infinite where the rate is 1 or more.

    Args:
      norms: `[n]`, φ_k.
      rate: β.
      start: τ, the lag from which β holds, below n.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import diagnose
    >>> phi = 0.5 ** jnp.arange(10.0)
    >>> float(diagnose.remainder(phi, jnp.float32(0.5))[2])
    0.5
    """
    n = norms.shape[0]
    if not 0 <= start < n:
        raise ValueError(f"start: expected a lag below {n}, got {start}")
    k = jnp.arange(n, dtype=norms.dtype)
    beyond = norms[start] / (1 - rate)
    held = jnp.where(k < start, norms, jnp.zeros_like(norms))
    before = jnp.cumsum(held[::-1])[::-1]
    found = before + beyond * rate ** jnp.maximum(k - start, jnp.zeros_like(k))
    nothing = norms[start] < jnp.exp(FLOOR).astype(norms.dtype)
    return jnp.where((rate < 1) | nothing, jnp.where(nothing, before, found), jnp.inf)


def relative_bias(
    norms: Float[Array, "n"],
    sums: Float[Array, "n"],
    rate: Float[Array, ""],
    start: int = 0,
) -> Float[Array, "n"]:
    """δ(K) of (3) for K = 1 … n: of a gradient that sees the lags below K.

    Args: `norms` and `sums` as of `ByLag`, the others as of `remainder`.
    """
    more = remainder(norms, rate, start)
    last = more[-1:] * rate if start < norms.shape[0] - 1 else more[-1:]
    left_out = jnp.concatenate([more[1:], last])
    least = jnp.maximum(sums - left_out, jnp.zeros_like(sums)).max()  # (2)
    return left_out / least


def window(
    norms: Float[Array, "n"],
    sums: Float[Array, "n"],
    *,
    tolerance: float,
    rate: Callable[..., Float[Array, ""]] = fitted_rate,
    start: int = 0,
) -> Int32[Array, ""]:
    """The least number of lags whose relative bias is below the tolerance.

    Args:
      norms, sums: as of `ByLag`, `[n]`.
      tolerance: of δ(K).
      rate: `(norms, start) -> β`: `fitted_rate`, `largest_rate` or `quantile_rate`.
      start: τ.

    Returns:
      int32, from 1 to n; n where none is below.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import diagnose
    >>> phi = 0.5 ** jnp.arange(20.0)
    >>> int(diagnose.window(phi, jnp.cumsum(phi), tolerance=0.1))
    4
    """
    fine = relative_bias(norms, sums, rate(norms, start), start) < tolerance
    n = fine.shape[0]
    return jnp.where(fine.any(), jnp.argmax(fine) + 1, n).astype(jnp.int32)


def horizon(norms: Float[Array, "n"], share: float = 0.95) -> Int32[Array, ""]:
    """The least number of lags that hold so large a share of Σ_k φ_k.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import diagnose
    >>> int(diagnose.horizon(0.5 ** jnp.arange(20.0)))
    5
    """
    held = jnp.cumsum(norms) / norms.sum()
    return (jnp.argmax(held >= share) + 1).astype(jnp.int32)
