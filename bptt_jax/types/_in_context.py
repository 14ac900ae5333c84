"""Parameters, and beside them what is constant in time."""

from typing import NamedTuple

from bptt_jax.types._pytree import PyTree


class InContext(NamedTuple):
    """Parameters of a cell or a layer that sees what is constant in time, and that.

    What `init` of such a part makes has no context; an unroll that is given `context=` puts
    it there, so the part's functions have both and the gradient is that of a leaf of the
    parameters.

    params: the part's own.
    context: leaves `[..., ]` with the batch axes first, or none of them; `()` where there is
        none yet.
    """

    params: PyTree
    context: PyTree = ()
