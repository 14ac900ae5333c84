"""Truncation at random, without bias (ARTBP: Tallec, Ollivier 2017).

    (1)  after step t, t < T, the gradient is cut with probability c_t:  ξ_t = 1
    (2)  δ_t = dℓ_t/ds_t + g_t δ_{t+1} ∂s_{t+1}/∂s_t,     g_t = 0 if ξ_t = 1
                                                          else 1/(1 - c_t)
    (3)  E[g_t | ξ_1 … ξ_{t-1}] = 1, so the mean of the gradient is the exact one
    (4)  c_t = (α - 1)/((α - 2) L + l_t),    l_t: steps since the last cut, 1 at the first

(4) makes segments of L steps in the mean, with a tail long enough that their weights have
a finite variance. g is what `on_d_carry` multiplies the cotangent of the state with.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax import layers
from bptt_jax.types import Cell, Layer, PyTree, Recurrent, Side
from bptt_jax.unrolls._bptt import bptt
from bptt_jax.unrolls._door import arrays, lift

STREAM = 0x41525450  # folded into a key of `side`, which layers draw from as well


def times(d_carry: PyTree, aux: Array | None) -> PyTree:
    """The hook of `layers.recurrent` that multiplies by `side.aux`, where there is any."""
    if aux is None:
        return d_carry
    return trees.scaled(d_carry, aux)


def truncation_gains(
    key: Array, length: int, *, mean_length: float, alpha: float = 4.0
) -> Array:
    """g of (2) for a sequence drawn by (1) and (4).

    Args:
      key: a PRNG key.
      length: T, steps.
      mean_length: L, the mean number of steps between cuts, more than 1.
      alpha: α of (4), more than 2.

    Returns:
      `[T]`; the last one is 1, for nothing follows it.

    >>> import jax
    >>> from bptt_jax import unrolls
    >>> unrolls.truncation_gains(jax.random.key(0), 5, mean_length=10).shape
    (5,)
    """
    if not mean_length > 1:
        raise ValueError(f"mean_length: expected more than 1 step, got {mean_length!r}")
    if not alpha > 2:
        raise ValueError(f"alpha: expected a number above 2, got {alpha!r}")
    return gains(jax.random.uniform(key, (length - 1,)), mean_length, alpha)


def gains(uniforms: Array, mean_length: float, alpha: float) -> Array:
    """g, cut where c_t is above the number drawn for it."""

    def step(since, u):
        c = (alpha - 1) / ((alpha - 2) * mean_length + since)  # (4)
        cut = u < c
        return jnp.where(cut, 1.0, since + 1), jnp.where(cut, 0.0, 1 / (1 - c))

    one = jnp.ones((), uniforms.dtype)
    return jnp.append(lax.scan(step, one, uniforms)[1], one)


def randomly_truncated(
    layer: Layer | Cell,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    side: Side = Side(),
    *,
    mean_length: float,
    key: Array | None = None,
    alpha: float = 4.0,
    chunk: int | None = None,
    length: int | None = None,
    context: PyTree = (),
) -> tuple[PyTree, PyTree]:
    """Runs a layer through time; its gradient is cut at random and right in the mean.

    The values are those of the other unrolls. Cuts are the same for all examples; the
    gradient that passes a place where there might have been a cut is enlarged, so that
    the mean over keys is the exact gradient, unlike that of `truncated`.

    Args:
      layer: a cell or a layer, with recurrent parts; hooks that these have act first.
      params, carry, xs, chunk, length, context: as of `bptt`.
      side: masks, resets, keys, targets, and `aux` for hooks of the layer's own; the
        gains go beside it, see `layers.in_turn`.
      mean_length: steps between cuts, in the mean; more than 1.
      key: where the cuts come from; None: from `side.keys`.
      alpha: how heavy the tail of the lengths is, above 2; the authors take 4 and 6.

    Returns:
      The state after the last step, and the outputs `[T, ..., O]`.

    Raises:
      ValueError, TypeError: an argument does not fit; the message names it.

    Cost: that of `bptt`; what is stored is not cut.

    Tallec, Ollivier (2017), "Unbiasing truncated backpropagation through time".

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, unrolls
    >>> cell = cells.gru(3, 8)
    >>> params = cell.init(jax.random.key(0))
    >>> def loss(params, xs, key):
    ...     carry = cell.init_carry(params, (2,))
    ...     run = unrolls.randomly_truncated
    ...     return (run(cell, params, carry, xs, mean_length=10, key=key)[1]**2).sum()
    >>> grads = jax.grad(loss)(params, jnp.ones((50, 2, 3)), jax.random.key(1))
    """
    layers.refuse_sections("randomly_truncated", layer, "it cuts time at random")
    if key is None:
        if side.keys is None:
            raise ValueError("key: expected a key, or keys in side.keys, got neither")
        key = jax.random.fold_in(side.keys[0], STREAM)
    layer = layers.over(lift(layer), _with_times)
    params, carry, xs, side = arrays(params, carry, xs, side, length, context)
    drawn = truncation_gains(
        key, trees.length(xs), mean_length=mean_length, alpha=alpha
    )
    side = side._replace(aux=(side.aux, drawn))
    return bptt(layer, params, carry, xs, side, chunk=chunk)


def _with_times(part: Recurrent) -> Layer:
    return layers.made(part._replace(on_d_carry=layers.in_turn(part.on_d_carry, times)))
