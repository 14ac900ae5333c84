"""`unrolls.step`, T times, is the unrolled model: states and outputs, masks, resets and keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import Side, cells, layers, loops, models, unrolls
from support import tiers
from support.compilations import compilations
from support.gradients import Case, arguments_of, error, quick_jit
from support.members import CELLS, COMBINED, LAYERS

MEMBERS = CELLS | COMBINED | LAYERS
FAST = "elman", "lstm, all options", "learned_carry", "zoneout", "character model"
T = 5


def at(tree, t):
    return jax.tree.map(lambda a: a[t], tree)


def worst(got, want):
    """Of two trees; a layer without a state has none that could be wrong."""
    pairs = zip(*map(jax.tree.leaves, (got, want)), strict=True)
    return max((error(a, b) for a, b in pairs), default=0.0)


def tier(name):
    """Layers and some cells in the slow tier; cells and what is made of them differ little."""
    by = tiers.slow if name in LAYERS else tiers.tier
    return by(name, name in FAST)


@pytest.mark.parametrize("name", [tier(name) for name in MEMBERS])
def test_every_member(name):
    member = MEMBERS[name]
    layer = member.make()
    params, carry, xs, side, _ = arguments_of(member, layer, Case(T, (2,), "both", ()))
    want, wanted = quick_jit(lambda *at: unrolls.scan(layer, *at))(
        params, carry, xs, side
    )
    for t in range(T):
        carry, y = unrolls.step(layer, params, carry, at(xs, t), at(side, t))
        assert worst(y, at(wanted, t)) <= 1e-12
    assert worst(carry, want) <= 1e-12


def model():
    inner = layers.recurrent(cells.gru(3, 4), loop=loops.native)
    return models.features(inner, 2, 4)


def test_it_is_compiled_once_and_runs_no_kernel_for_a_stretch():
    made = model()
    params = made.init(jax.random.key(0))
    carry = made.init_carry(params, (2,))
    x = jnp.ones((2, 3), params[0]["w_x"].dtype)
    for one in (x, np.asarray(x)):  # JAX has a program for what comes from outside
        carry, _ = unrolls.step(made, params, carry, one)
    with compilations() as found:
        for _ in range(3):
            carry, _ = unrolls.step(made, params, carry, 2 * np.asarray(x))
        unrolls.step(model(), params, carry, np.asarray(x))
    assert found == []
    text = jax.jit(lambda *at: unrolls.step(made, *at)).lower(params, carry, x)
    assert "custom_call" not in text.as_text()


def test_without_inputs_and_without_a_batch():
    cell = cells.gru(0, 4)
    params = cell.init(jax.random.key(0))
    carry = cell.init_carry(params, ())
    carry, y = unrolls.step(cell, params, carry, None)
    want = unrolls.scan(cell, params, cell.init_carry(params, ()), None, length=1)
    np.testing.assert_allclose(y, want[1][0])


@pytest.mark.parametrize(
    ("x", "side", "message"),
    [
        (np.ones((2, 3)), Side(mask=np.ones((1, 2))), r"side.mask: expected bool"),
        (np.ones((2, 3)), Side(resets=np.ones(5, bool)), "side.resets: expected the"),
        (np.ones((2, 7)), Side(), "to go with weights"),
    ],
)
def test_what_does_not_fit_is_named(x, side, message):
    cell = cells.gru(3, 4)
    params = cell.init(jax.random.key(0))
    carry = cell.init_carry(params, (2,))
    with pytest.raises((TypeError, ValueError), match=message):
        unrolls.step(cell, params, carry, x.astype(params["w_x"].dtype), side)


def test_a_symbol_that_is_none():
    made = models.symbols(5, 3, cells.gru(3, 4), 5, 4)
    params = made.init(jax.random.key(0))
    with pytest.raises(ValueError, match="from 0 to 4"):
        unrolls.step(made, params, made.init_carry(params, (1,)), np.array([5]))
