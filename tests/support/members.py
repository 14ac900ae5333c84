"""The members that every contract suite runs over. A new one is one line here.

Those that are part of the library come from `bptt_jax.verify`, whose tables
`bptt-jax check` runs over as well: a new cell is one line there.
"""

import jax
import jax.numpy as jnp

from bptt_jax import cells
from bptt_jax.verify import CELLS as _CELLS
from bptt_jax.verify import LAYERS, UNROLLS, Member
from support.complex_cells import BY_HAND, BY_JAX

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
    "lstm, chrono": Member(lambda n=4: cells.lstm(3, n, chrono=20)),
}
ALIKE = {
    "elman, irnn": "elman, relu",
    "lstm, float64": "lstm",
    "gru, chrono": "gru",
    "lstm, chrono": "lstm",
}
"""Cells that differ from another in nothing but how their parameters are made."""

_leaky = _CELLS["from_step"].make
COMBINED = {
    "elman, sigmoid": Member(lambda: cells.elman(3, 4, activation=jax.nn.sigmoid)),
    "indrnn, softplus": Member(lambda: cells.indrnn(3, 4, activation=jax.nn.softplus)),
    "ctrnn, relu": Member(lambda: cells.ctrnn(3, 4, activation=jax.nn.relu)),
    "ctrnn, currents, softplus": Member(
        lambda: cells.ctrnn(
            3, 4, rate_state=False, learn_tau=True, activation=jax.nn.softplus
        )
    ),
    "lstm, gate axis": Member(lambda: cells.lstm(3, 4, gate_axis=True)),
    "gru, gate axis": Member(lambda: cells.gru(3, 4, gate_axis=True)),
    "gru, reset before, gate axis": Member(
        lambda: cells.gru(3, 4, gate_axis=True, reset_after=False)
    ),
    "lstm, peepholes, projection": Member(
        lambda: cells.lstm(3, 4, peepholes=True, projection=2)
    ),
    "lstm, peepholes, layer norm": Member(
        lambda: cells.lstm(3, 4, peepholes=True, layer_norm=True)
    ),
    "lstm, projection, layer norm": Member(
        lambda: cells.lstm(3, 4, projection=2, layer_norm=True)
    ),
    "zoneout of zoneout": Member(
        lambda: cells.zoneout(cells.zoneout(cells.elman(3, 4), 0.3), 0.2)
    ),
    "zoneout of learned_carry": Member(
        lambda: cells.zoneout(cells.learned_carry(cells.gru(3, 4)), 0.2)
    ),
    "learned_carry of zoneout": Member(
        lambda: cells.learned_carry(
            cells.zoneout(
                cells.lstm(3, 4, peepholes=True, projection=2, layer_norm=True), 0.2
            )
        )
    ),
    "zoneout of from_step": Member(lambda: cells.zoneout(_leaky(4), 0.2)),
    "zoneout of ctrnn": Member(
        lambda: cells.zoneout(cells.ctrnn(3, 4, rate_state=False), 0.2)
    ),
    "learned_carry of from_step": Member(lambda: cells.learned_carry(_leaky(4))),
    "complex, by hand": Member(lambda: BY_HAND),
    "complex, from_step": Member(lambda: BY_JAX),
    "in_dtype of learned_carry": Member(
        lambda: cells.in_dtype(cells.learned_carry(cells.mgu(3, 4)), jnp.float64)
    ),
}
"""Options and combinators together: of each the gradient alone is checked."""

__all__ = ["ALIKE", "CELLS", "COMBINED", "LAYERS", "UNROLLS", "Member"]
