"""Every step sees every other."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory, positive
from bptt_jax.types import Side, Whole
from bptt_jax.wholes._softmax import softmax

_lecun_normal = jax.nn.initializers.lecun_normal()


@factory
def attention(
    n_features: int,
    n_heads: int = 1,
    *,
    kernel_init: Callable = _lecun_normal,
    param_dtype=jnp.float32,
) -> Whole:
    """Self-attention of several heads over the whole sequence, added to it.

        q, k, v = W_q y + b_q, …     for each head, of D = I / n_heads features
        ys_t = y_t + W_o [Σ_s softmax_s(q_t · k_s / √D) v_s]_heads + b_o

    `[T, ..., I] -> [T, ..., I]`. Steps attend to real steps alone, and with resets to those of
    their own sequence; a masked step is zero. It knows nothing of the order of steps but what
    the layers before it put into them.

    Args:
      n_features: I, which `n_heads` divides.
      n_heads: N.

    Returns:
      A `Whole`; params are those of `flax.linen.MultiHeadDotProductAttention`: `query`, `key`,
      `value` (`kernel [I, N, D]`, `bias [N, D]`) and `out` (`kernel [N, D, I]`, `bias [I]`).

    Cost: time and memory O(B·N·T²), for the weights of all pairs of steps.

    Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin (2017), "Attention is
    all you need", section 3.2.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import Side, wholes
    >>> block = wholes.attention(4, n_heads=2)
    >>> block.apply(block.init(jax.random.key(0)), jnp.ones((7, 2, 4)), Side())[0].shape
    (7, 2, 4)
    """
    positive(n_features=n_features, n_heads=n_heads)
    if n_features % n_heads:
        raise ValueError(
            f"n_heads: expected a divisor of the {n_features} features, got {n_heads}"
        )
    shape = n_heads, n_features // n_heads

    def init(key):
        *keys, k_out = jax.random.split(key, 4)
        flat = n_features, n_features
        names = "query", "key", "value"
        params = {
            name: dict(
                kernel=kernel_init(k, flat, param_dtype).reshape(n_features, *shape),
                bias=jnp.zeros(shape, param_dtype),
            )
            for name, k in zip(names, keys, strict=True)
        }
        kernel = kernel_init(k_out, flat, param_dtype).reshape(*shape, n_features)
        out = dict(kernel=kernel, bias=jnp.zeros((n_features,), param_dtype))
        return params | dict(out=out)

    def apply(params, ys, side):
        if ys.shape[-1] != n_features:
            raise ValueError(
                f"attention: expected [..., {n_features}], got {list(ys.shape)}"
            )
        ys = _real(side, ys)
        q, k, v = (
            _linear("...i,ind->...nd", params[name], ys)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("t...nd,s...nd->...nts", q * shape[1] ** -0.5, k)
        weights = softmax(scores, _seen(side, ys.ndim - 2), -1)
        heads = jnp.einsum("...nts,s...nd->t...nd", weights, v)
        mixed = _linear("...nd,ndi->...i", params["out"], heads)
        return _real(side, ys + mixed), side

    return Whole(init, apply)


def _real(side: Side, ys):
    return ys if side.mask is None else trees.only(side.mask, ys)


def _linear(how: str, params, xs):
    ys = jnp.einsum(how, xs, params["kernel"])
    return ys + trees.across(ys, params["bias"])


def _seen(side: Side, batch: int) -> Array | None:
    """bool `[..., 1, T, S]`, whether step t sees step s; None: each sees all."""

    def rows(a):  # [T, ...] -> [..., 1, T]
        a = a.reshape(a.shape + (1,) * (1 + batch - a.ndim))
        return jnp.moveaxis(a, 0, -1)[..., None, :]

    seen = None if side.mask is None else rows(side.mask)[..., None, :]
    if side.resets is None:
        return seen
    numbers = rows(jnp.cumsum(side.resets, 0, jnp.int32))
    own = numbers[..., :, None] == numbers[..., None, :]
    return own if seen is None else own & seen
