"""`gates`: every cell whose gates have names, beside a loop in Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, diagnose, layers, models, plots, wholes
from support import tiers, watching
from support.gradients import initial, quick_jit
from support.members import ALIKE, CELLS

NAMED = {
    "lstm": "fgio", "lstm, peepholes": "fgio", "lstm, projection": "fgio",
    "lstm, layer norm": "fgio", "lstm, all options": "fgio", "lstm, float64": "fgio",
    "lstm, chrono": "fgio", "gru": "nrz", "gru, chrono": "nrz", "gru, reset before": "nrz",
    "mgu": "fn", "mgu, as published": "fn", "learned_carry": "nrz", "zoneout, lstm": "fgio",
}  # fmt: skip
"""Cells with gates, and these; the others have none."""


def looped(cell, params, batch, carry):
    """Each gate of each real step, by steps one after another: name -> `[n]`."""
    found: dict[str, list] = {}

    @quick_jit
    def one(carry, x, real, t):
        given = (x, jax.random.key(t)) if cell.keyed else x
        us = jax.tree.map(lambda a: a[None], cell.vjp.project(params, given))
        before = jax.tree.map(lambda a: a[None], carry)
        after, _ = cell.step(params, carry, given)
        keep = lambda a, b: jnp.where(real.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        gates = cells.named_gates(cell, params, before, us)
        return gates, jax.tree.map(keep, after, carry)

    for t, x in enumerate(np.nan_to_num(batch.inputs)):
        real = np.asarray(batch.side.mask[t])
        gates, carry = one(carry, x, real, t)
        for name, a in gates.items():
            found.setdefault(name, []).append(np.asarray(a[0])[real].ravel())
    return {name: np.concatenate(parts) for name, parts in found.items()}


@pytest.mark.parametrize(
    "name", [tiers.tier(name, name not in ALIKE) for name in CELLS]
)
def test_of_every_cell(name):
    cell, batch = CELLS[name].make(), watching.batch(ragged=True, steps=4)
    batch = batch._replace(side=batch.side._replace(resets=None, targets=None))
    with jax.numpy_dtype_promotion("standard"):
        params = initial(cell, (0, 1))
    params = jax.tree.map(lambda a: 3 * a.astype(np.float64), params)
    if name not in NAMED:
        with pytest.raises(ValueError, match="expected a part whose gates have names"):
            diagnose.gates(cell, params, batch)
        return
    if cell.keyed:
        batch = batch._replace(
            side=batch.side._replace(keys=jax.random.split(jax.random.key(0), 4))
        )
    (use,) = diagnose.gates(cell, params, batch, bins=5).values()
    assert "".join(sorted(use.low)) == NAMED[name]
    want = looped(cell, params, batch, cell.init_carry(params, (2,)))
    for gate, values in want.items():
        edges, shares = use.histograms[gate]
        least = -1 if gate in "gn" else 0
        assert (edges[0], edges[-1]) == (least, 1)
        if not cell.keyed:  # which units are held is drawn
            counts = np.histogram(values, np.asarray(edges, float))[0]
            np.testing.assert_allclose(shares, counts / len(values), atol=1e-6)
            tenth = (1 - least) / 10
            np.testing.assert_allclose(
                use.low[gate], (values < least + tenth).mean(), 1e-6
            )
            np.testing.assert_allclose(
                use.high[gate], (values > 1 - tenth).mean(), 1e-6
            )
        np.testing.assert_allclose(shares.sum(), 1, rtol=1e-6)


def test_of_several_parts_those_that_have_some():
    model = layers.stack(
        memory=cells.lstm(3, 4), plain=cells.elman(4, 4), top=cells.gru(4, 2)
    )
    params = initial(model, (0, 0))
    batch = jax.tree.map(lambda a: a.astype("f"), watching.batch())
    found = diagnose.gates(model, params, batch)
    assert list(found) == ["['memory'] lstm", "['top'] gru"]
    assert plots.gates(found["['top'] gru"].histograms).axes[0].get_title()[0] == "n"
    with pytest.raises(ValueError, match="bins must be"):
        diagnose.gates(model, params, batch, bins=0)
    whole = models.sections(cells.gru(3, 4), wholes.last())
    with pytest.raises(TypeError, match="needs the whole sequence|need the whole"):
        diagnose.gates(whole, initial(whole, (0, 0)), batch)
