"""The mean over the real steps."""

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.types import Whole
from bptt_jax.wholes._last import no_params
from bptt_jax.wholes._one_step import one_step


@factory
def mean() -> Whole:
    """The mean of the outputs over the real steps: `[T, ..., O] -> [1, ..., O]`.

    It is summed in at least float32. Of a sequence without a real step it is zero.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import Side, wholes
    >>> ys, mask = jnp.arange(6.0).reshape(3, 2), jnp.array([True, True, False])
    >>> wholes.mean().apply((), ys, Side(mask=mask))[0].tolist()
    [[1.0, 2.0]]
    """

    def apply(params, ys, side):
        del params
        return jax.tree.map(lambda a: _mean(side.mask, a), ys), one_step(side)

    return Whole(no_params, apply)


def _mean(mask, a):
    wide = trees.widened(a)
    if mask is None:
        return wide.mean(0, keepdims=True).astype(a.dtype)
    count = jnp.maximum(mask.sum(0, keepdims=True, dtype=jnp.int32), 1)
    total = trees.only(mask, wide).sum(0, keepdims=True)
    return (total / trees.along(total, count).astype(total.dtype)).astype(a.dtype)
