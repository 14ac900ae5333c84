"""A weighted mean over the real steps, with weights that are learnt."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory, positive
from bptt_jax.types import Whole
from bptt_jax.wholes._one_step import one_step
from bptt_jax.wholes._softmax import softmax

_lecun_normal = jax.nn.initializers.lecun_normal()


@factory
def attention_pool(
    n_features: int,
    n_hidden: int | None = None,
    *,
    kernel_init: Callable = _lecun_normal,
    param_dtype=jnp.float32,
) -> Whole:
    """A mean over the real steps with weights that are learnt: `[T, ..., I] -> [1, ..., I]`.

        w_t = softmax_t(query · tanh(W y_t + b)),     y = Σ_t w_t y_t

    Of a sequence without a real step it is zero.

    Args:
      n_features: I.
      n_hidden: of the tanh; None: I.

    Returns:
      A `Whole`; params `kernel [I, A]`, `bias [A]`, `query [A]`.

    Cost: one product over all steps; memory O(T·B·A).

    Yang, Yang, Dyer, He, Smola, Hovy (2016), "Hierarchical attention networks for document
    classification", equations 5 to 7.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import Side, wholes
    >>> pool = wholes.attention_pool(3)
    >>> pool.apply(pool.init(jax.random.key(0)), jnp.ones((7, 2, 3)), Side())[0].shape
    (1, 2, 3)
    """
    A = n_features if n_hidden is None else n_hidden
    positive(n_features=n_features, n_hidden=A)

    def init(key):
        k_kernel, k_query = jax.random.split(key)
        return dict(
            kernel=kernel_init(k_kernel, (n_features, A), param_dtype),
            bias=jnp.zeros((A,), param_dtype),
            query=kernel_init(k_query, (A, 1), param_dtype)[:, 0],
        )

    def apply(params, ys, side):
        if ys.shape[-1] != n_features:
            raise ValueError(
                f"attention_pool: expected [..., {n_features}], got {list(ys.shape)}"
            )
        ys = ys if side.mask is None else trees.only(side.mask, ys)
        hidden = ys @ params["kernel"]
        scores = (
            jnp.tanh(hidden + trees.across(hidden, params["bias"])) @ params["query"]
        )
        mask = None if side.mask is None else trees.along(scores, side.mask)
        weights = softmax(scores, mask, 0)
        pooled = (weights[..., None] * ys).sum(0, keepdims=True)
        return pooled, one_step(side)

    return Whole(init, apply)
