"""What the recurrent parts of a model are called where each has a result."""

import jax

from bptt_jax import layers
from bptt_jax.types import Cell, Layer, Sections


def names(model: Layer | Cell | Sections) -> list[str]:
    """Of each recurrent part, in the order in which they are run, the place of its parameters
    and the name of its equations: `[0] lstm`, `['memory'] gru`.

    Raises:
      ValueError: there is none.
    """
    found = layers.parts(model)
    if not found:
        raise ValueError("model: expected one with a recurrent part, it has none")
    each = [(jax.tree_util.keystr(p.path), p.recurrent.cell.name) for p in found]
    return [" ".join(filter(None, pair)) or "cell" for pair in each]
