"""The members that every contract suite runs over. A new one is one line here.

Those that are part of the library come from `bptt_jax.verify`, whose tables
`bptt-jax check` runs over as well: a new cell is one line there.
"""

import jax
import jax.numpy as jnp

from bptt_jax import cells
from bptt_jax.verify import CELLS as _CELLS
from bptt_jax.verify import LAYERS, UNROLLS, Member

CELLS = {
    **_CELLS,
    "elman, softplus": Member(
        lambda n=4: cells.elman(3, n, activation=jax.nn.softplus)
    ),
    "elman, irnn": Member(
        lambda n=4: cells.elman(
            3, n, activation=jax.nn.relu, recurrent_kernel_init=cells.identity
        )
    ),
    "lstm, float64": Member(lambda n=4: cells.lstm(3, n, param_dtype=jnp.float64)),
    "gru, chrono": Member(lambda n=4: cells.gru(3, n, chrono=20)),
}

__all__ = ["CELLS", "LAYERS", "UNROLLS", "Member"]
