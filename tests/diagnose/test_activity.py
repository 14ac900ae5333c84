"""Gates and units whose state is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import _pytrees as trees
from bptt_jax import cells, diagnose, layers
from support import watching


def test_gates_are_those_of_the_equations():
    model, batch = watching.model(), watching.batch(ragged=True)
    params = watching.params_of(model)
    lstm, gru = diagnose.activity(model, params, batch)
    assert sorted(lstm.low) == ["f", "g", "i", "o"]
    assert sorted(gru.high) == ["n", "r", "z"]
    p = params[0]
    real, gates, states = np.asarray(batch.side.mask), [], []
    carry = model.init_carry(params, (2,))[0]
    for x, m, r in zip(batch.inputs, real, batch.side.resets, strict=True):
        states.append(carry.h)
        begun = trees.where(~r, carry, jax.tree.map(jnp.zeros_like, carry))
        a = np.nan_to_num(x) @ p["w_x"] + begun.h @ p["w_h"] + p["b"]
        gates.append(1 / (1 + np.exp(-a[:, 4:8])))
        after, _ = watching.cell("lstm").step(p, begun, jnp.nan_to_num(x))
        carry = trees.where(jnp.asarray(m), after, carry)
    f, h = np.stack(gates), np.stack(states)
    np.testing.assert_allclose(lstm.high["f"], (f[real] > 0.9).mean(0), atol=1e-12)
    np.testing.assert_allclose(lstm.means.h, h[real].mean(0), atol=1e-12)
    np.testing.assert_allclose(lstm.deviations.h, h[real].std(0), atol=1e-12)
    np.testing.assert_allclose(
        lstm.state_norms.h, np.linalg.norm(h, axis=-1), atol=1e-12
    )


def test_forced_gates_and_dead_units():
    cell = watching.cell("lstm")
    params = watching.params_of(cell)
    b = params["b"].copy()
    b[:4], b[4:8] = -50.0, 50.0
    open_forget = params | dict(b=b)
    (found,) = diagnose.activity(layers.recurrent(cell), open_forget, watching.batch())
    np.testing.assert_array_equal(found.high["f"], 1.0)
    np.testing.assert_array_equal(found.low["i"], 1.0)
    assert found.dead.c.all(), "nothing gets in"
    half_open = jax.tree.map(jnp.zeros_like, params)
    (found,) = diagnose.activity(layers.recurrent(cell), half_open, watching.batch())
    for name in "ifgo":  # candidates are in the middle of theirs at zero
        assert not (found.low[name] + found.high[name]).any(), name

    relu = cells.elman(3, 4, activation=jax.nn.relu, param_dtype=jnp.float64)
    params = watching.params_of(relu)
    params = params | dict(b=jnp.array([-100.0, 0.0, 0.0, 0.0]))
    (found,) = diagnose.activity(layers.recurrent(relu), params, watching.batch())
    assert found.dead.tolist() == [True, False, False, False]
    assert found.low == {}


def test_states_whose_squares_half_precision_does_not_hold():
    """300 in each of 100 units after the first step, in float16."""
    cell = cells.elman(3, 100, activation=lambda a: a, param_dtype=jnp.float16)
    params = cell.init(jax.random.key(0))
    params = jax.tree.map(jnp.zeros_like, params) | dict(b=jnp.full(100, 300.0, "e"))
    batch = watching.batch(steps=4)
    batch = batch._replace(inputs=batch.inputs.astype(jnp.float16))
    (found,) = diagnose.activity(layers.recurrent(cell), params, batch)
    np.testing.assert_allclose(found.state_norms[0], 0)
    np.testing.assert_allclose(found.state_norms[1:], 3000)
    np.testing.assert_allclose(found.means, 225)
    np.testing.assert_allclose(found.deviations, np.std([0, 300, 300, 300]), rtol=1e-6)


def test_clipping():
    found = diagnose.clipping(np.array([0.5, 2.0]), 1.0)
    assert found == (0.5, 0.5, 2.0)
    assert diagnose.clipping([0.1], 1.0) == (0.0, 1.0, 0.1)
    with pytest.raises(ValueError, match="grad_norms: expected"):
        diagnose.clipping([], 1.0)
