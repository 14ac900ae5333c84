"""From the end to the beginning."""

import jax
import jax.numpy as jnp

from bptt_jax._factory import factory, functions
from bptt_jax.types import Side, Unroll


def _flip(tree):
    """Along time; a leaf without an axis of time is refused by the unroll, in words."""
    return jax.tree.map(lambda a: jnp.flip(a, 0) if jnp.ndim(a) else a, tree)


def _backward_resets(resets):
    """A reset before step t is a boundary between t - 1 and t, so from the other side it
    comes before step t - 1; the one before the first step has nothing behind it.
    """
    return jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])


@factory
def reverse(unroll: Unroll) -> Unroll:
    """The unroll from step T to step 1; `ys[t]` still belongs to `xs[t]`.

    As `lax.scan(..., reverse=True)`. With `side.resets`, sequences that lie one after
    another in a row are each run from their own end.

    >>> from bptt_jax import unrolls
    >>> backward_in_time = unrolls.reverse(unrolls.bptt)
    """
    functions(unroll=unroll)

    def reversed_unroll(layer, params, carry, xs, side=Side(), **options):
        side = jax.tree.map(jnp.asarray, side)
        if isinstance(side, Side) and side.resets is not None:
            side = side._replace(resets=_backward_resets(side.resets))
        carry, ys = unroll(layer, params, carry, _flip(xs), _flip(side), **options)
        return carry, _flip(ys)

    return reversed_unroll
