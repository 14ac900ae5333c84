"""The last real step."""

from bptt_jax._factory import factory
from bptt_jax.types import Whole
from bptt_jax.wholes._one_step import at_last, one_step


def no_params(key):
    """The parameters of what has none."""
    del key
    return ()


@factory
def last() -> Whole:
    """The outputs of the last real step of each sequence: `[T, ..., O] -> [1, ..., O]`.

    Of a sequence without a real step it is zero. After `bidirectional` the last step has
    heard one step from the end: `ends` has the last of each direction.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import Side, wholes
    >>> ys, mask = jnp.arange(6.0).reshape(3, 2), jnp.array([True, True, False])
    >>> wholes.last().apply((), ys, Side(mask=mask))[0].tolist()
    [[2.0, 3.0]]
    """

    def apply(params, ys, side):
        del params
        return at_last(side.mask, ys), one_step(side)

    return Whole(no_params, apply)
