"""A cell from a step is looked at as the same cell of the library is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import Batch, Side, cells, diagnose, layers, objectives, unrolls
from bptt_jax.types import Unsaid
from support.gradients import quick_jit

T, B, I, H = 6, 2, 3, 4
LOSS = objectives.squared_error
rng = np.random.default_rng(0)
PARAMS = dict(
    w_x=rng.normal(size=(I, H)), w_h=rng.normal(size=(H, H)), b=rng.normal(size=H)
)
MASK = np.array([[True] * T, [True] * (T - 2) + [False] * 2]).T
BATCH = Batch(rng.normal(size=(T, B, I)), Side(targets=rng.normal(size=(T, B, H))))
PADDED = BATCH._replace(side=BATCH.side._replace(mask=MASK))


def step(p, h, x):
    h = jnp.tanh(x @ p["w_x"] + h @ p["w_h"] + p["b"])
    return h, h


def anew(p, h, x):
    """The output is equal to the state, which no trace shows."""
    h = step(p, h, x)[0]
    return h, h + 0 * h


def init(key):
    return jax.tree.map(jnp.zeros_like, PARAMS)


def init_carry(p, batch_shape):
    return jnp.zeros((*batch_shape, H), p["b"].dtype)


def gates(p, hs, xs):
    return dict(z=jax.nn.sigmoid(hs + xs @ p["w_x"]))


inner = jax.jit(step)
OWN = {
    "seen in the trace": (step, {}),
    "under jit": (inner, {}),
    "under jit twice, then a dict": (
        lambda p, h, x: inner(p, inner(p, h, x)[0] * 0 + h, x), {}
    ),
    "under checkpoint": (jax.checkpoint(step), {}),
    "said": (anew, dict(output=lambda h: h)),
}  # fmt: skip


def own(name):
    f, options = OWN[name]
    return cells.from_step(f, init, init_carry, **options)


def looked_at(cell, batch):
    model = layers.recurrent(cell)
    flow = diagnose.gradient_flow(model, LOSS, PARAMS, batch)
    by_step = diagnose.contributions(model, LOSS, PARAMS, batch)
    lags = diagnose.by_lag(model, LOSS, PARAMS, batch, lags=3)
    ending = diagnose.omega(model, LOSS, PARAMS, batch)
    rate = diagnose.fitted_rate(lags.norms), diagnose.horizon(lags.norms)
    run = quick_jit(lambda *at: unrolls.scan(cell, *at)[1])
    ys = run(PARAMS, np.zeros((B, H)), batch.inputs, batch.side)
    return flow, by_step, lags, ending, rate, ys


@functools.cache
def library(padded: bool):
    return looked_at(cells.elman(I, H), PADDED if padded else BATCH)


@pytest.mark.parametrize(
    ("name", "padded"), [*((name, True) for name in OWN), ("seen in the trace", False)]
)
def test_one_figure(name, padded):
    found = looked_at(own(name), PADDED if padded else BATCH)
    for a, b in zip(*map(jax.tree.leaves, (found, library(padded))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "look", [diagnose.gradient_flow, diagnose.contributions, diagnose.omega]
)
def test_what_is_neither_seen_nor_said_is_asked_for(look):
    unsaid = layers.recurrent(cells.from_step(anew, init, init_carry))
    with pytest.raises(ValueError, match=r"output=lambda carry.*output=None"):
        look(unsaid, LOSS, PARAMS, BATCH)
    no_part = layers.recurrent(cells.from_step(anew, init, init_carry, output=None))
    assert jnp.isfinite(look(no_part, LOSS, PARAMS, BATCH).loss)


def test_two_calls_of_one_program_are_told_apart():
    def two(p, h, x):
        return inner(p, h, x)[0], inner(p, h, 2 * x)[0]

    cell = cells.from_step(two, init, init_carry)
    known = cells.recognised(cell, PARAMS, jnp.zeros((B, H)), BATCH.inputs)
    assert isinstance(known.output, Unsaid)


def test_the_part_that_is_the_output_is_found_wherever_it_is():
    def second(p, carry, x):
        before, h = carry
        h = step(p, h, x)[0]
        return (before + h, h), h

    cell = cells.from_step(second, init, init_carry)
    carry = (jnp.zeros((B, H)), jnp.zeros((B, H)))
    known = cells.recognised(cell, PARAMS, carry, BATCH.inputs)
    assert known.output(("a sum", "the state")) == "the state"


def test_something_made_of_the_state_is_no_selection():
    cell = cells.from_step(step, init, init_carry, output=lambda h: 2.0 * h)
    with pytest.raises(TypeError, match="output: expected leaves of the carry"):
        unrolls.bptt(cell, PARAMS, jnp.zeros((B, H)), BATCH.inputs)
    with pytest.raises(TypeError, match="output: expected a function"):
        cells.from_step(step, init, init_carry, output=3)


def test_gates_are_shown():
    cell = cells.from_step(step, init, init_carry, gates=gates)
    (found,) = diagnose.activity(layers.recurrent(cell), PARAMS, PADDED)
    assert found.low["z"].shape == (H,)


def test_a_keyed_step_gets_the_key_of_the_step():
    def noisy(p, h, at):
        x, key = at
        x = x if key is None else x + jax.random.normal(key, x.shape, x.dtype)
        return step(p, h, x)

    cell = cells.from_step(noisy, init, init_carry, keyed=True)
    keys = jax.random.split(jax.random.key(3), T)
    at = PARAMS, np.zeros((B, H))

    @quick_jit
    def three(keys):
        """By two unrolls, and of inputs with the noise already in them."""
        side = BATCH.side._replace(keys=keys)
        xs = BATCH.inputs
        if keys is not None:
            xs += jax.vmap(lambda k: jax.random.normal(k, (B, I), jnp.float64))(keys)
        found = [
            unroll(cell, *at, BATCH.inputs, side)[1]
            for unroll in (unrolls.bptt, unrolls.scan)
        ]
        return *found, unrolls.scan(cells.elman(I, H), *at, xs)[1]

    for given in (keys, None):
        *found, want = three(given)
        for ys in found:
            np.testing.assert_allclose(ys, want, rtol=1e-12)
