"""The gradient with respect to targets and weights, through every unroll.

For squared errors it is known in closed form from the outputs alone,

    ∂L/∂target_t = -2 w_t v_t (y_t - target_t),      ∂L/∂w_t = v_t |y_t - target_t|²

summed over the axes of the batch that the weights lack, and zero where a step is masked.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import Side, cells, layers, objectives, unrolls
from bptt_jax.types import Weighted
from support import tiers
from support.compiled import hlo_as_users
from support.gradients import quick_jit

T, B, I, H = 7, 2, 3, 4
CELL = cells.gru(I, H)
LAYER = layers.with_loss(layers.recurrent(CELL), objectives.squared_error)
rng = np.random.default_rng(0)
XS, GOALS = rng.normal(size=(T, B, I)), rng.normal(size=(T, B, H))
PARAMS = dict(
    w_x=rng.normal(size=(I, 3 * H)),
    w_h=rng.normal(size=(H, 3 * H)),
    b=rng.normal(size=3 * H),
    b_n=rng.normal(size=H),
)
V, MASK = rng.normal(size=T), rng.random((T, B)) < 0.7
WEIGHTS = {"each step": rng.random(T), "each example": rng.random((T, B)), "none": None}


UNROLLS = {
    "bptt": functools.partial(unrolls.bptt, chunk=3),
    "checkpointed": functools.partial(unrolls.checkpointed, chunk=2, slots=2),
    "checkpointed, kept": functools.partial(unrolls.checkpointed, chunk=2, kept=1),
    "truncated": functools.partial(unrolls.truncated, window=3),
    "truncated, overlapping": functools.partial(unrolls.truncated, window=4, stride=2),
    "randomly_truncated": functools.partial(
        unrolls.randomly_truncated, mean_length=2, key=jax.random.key(1), chunk=3
    ),
    "both_modes": functools.partial(unrolls.both_modes, chunk=3),
    "reverse": unrolls.reverse(functools.partial(unrolls.bptt, chunk=3)),
    "scan": unrolls.scan,
}


@functools.cache
def outputs(unroll, mask: bytes):
    """Of the cell alone, from a carry of zeros."""
    side = Side(mask=np.frombuffer(mask, bool).reshape(T, B))
    run = quick_jit(lambda c: unroll(CELL, PARAMS, c, XS, side)[1])
    return np.asarray(run(np.zeros((B, H))))


def expected(unroll, targets, weights, mask):
    """The closed form, in NumPy."""
    ys = outputs(unroll, mask.tobytes())
    apart = np.where(mask[..., None], ys - targets, 0)
    full = np.ones((T, B)) if weights is None else weights
    full = np.broadcast_to(full.reshape(T, -1), (T, B))
    v = V[:, None]
    d_weights = v * (apart**2).sum(-1)
    if weights is not None and weights.ndim == 1:
        d_weights = d_weights.sum(1)
    return -2 * (v * full)[..., None] * apart, d_weights


def layer_for(name):
    if name != "randomly_truncated":
        return LAYER
    part = layers.recurrent(CELL, on_d_carry=unrolls.times)
    return layers.with_loss(part, objectives.squared_error)


def _tier(name, weights) -> list:
    if weights == "each example" or name == "bptt":
        return []
    return [pytest.mark.release if weights == "none" else pytest.mark.slow]


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        pytest.param(name, weights, marks=_tier(name, weights))
        for name in UNROLLS
        for weights in WEIGHTS
    ],
)
def test_targets_and_weights_have_their_gradient(name, weights):
    unroll, weights = UNROLLS[name], WEIGHTS[weights]
    params = PARAMS
    carry = jnp.zeros((B, H))
    goals = np.where(MASK[..., None], GOALS, np.nan)

    def loss(targets, weights):
        given = targets if weights is None else Weighted(targets, weights)
        side = Side(mask=MASK, targets=given)
        return (V * unroll(layer_for(name), params, carry, XS, side)[1]).sum()

    given = (goals,) if weights is None else (goals, weights)
    argnums = tuple(range(len(given)))
    found = quick_jit(jax.grad(lambda *at: loss(*at, *[None] * (2 - len(at))), argnums))
    plain = UNROLLS["reverse"] if name == "reverse" else unrolls.scan
    want = expected(plain, GOALS, weights, MASK)
    for a, b in zip(found(*given), want, strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_pullback_returns_it():
    side = Side(mask=MASK, targets=Weighted(GOALS, WEIGHTS["each step"]))

    @quick_jit
    def run(params, carry):
        (last, _), back = unrolls.pullback(
            LAYER, params, carry, XS, side, chunk=3,
            watch=lambda seen: (unrolls.contract(seen), seen.d_states),
        )  # fmt: skip
        return back(jnp.zeros_like(last), jnp.asarray(V)).d_targets

    found = run(PARAMS, np.zeros((B, H)))
    want = expected(unrolls.scan, GOALS, WEIGHTS["each step"], MASK)
    np.testing.assert_allclose(found.targets, want[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.weights, want[1], rtol=1e-10, atol=1e-12)


def test_forward_mode_along_targets():
    params, carry = PARAMS, jnp.zeros((B, H))
    along = rng.normal(size=GOALS.shape), rng.normal(size=T)

    def losses(unroll, targets, weights):
        side = Side(mask=MASK, targets=Weighted(targets, weights))
        return unroll(LAYER, params, carry, XS, side)[1]

    at = GOALS, WEIGHTS["each step"]
    both = UNROLLS["both_modes"], unrolls.scan
    slopes = quick_jit(
        lambda *d: [jax.jvp(functools.partial(losses, u), at, d)[1] for u in both]
    )(*along)
    np.testing.assert_allclose(*slopes, rtol=1e-10)


def combined(loss):
    """Layers around and beside one that reads targets."""
    twice = layers.time_distributed(lambda key: (), lambda p, xs: 2 * xs)
    return layers.remat(layers.stack(loss, twice))


def test_combinators_hand_it_on():
    layer, params = combined(LAYER), PARAMS
    carry = layer.init_carry((PARAMS, ()), (B,))

    def loss(targets, unroll):
        side = Side(targets=targets)
        return (V * unroll(layer, (params, ()), carry, XS, side)[1]).sum()

    found = quick_jit(lambda t: jax.grad(loss)(t, UNROLLS["bptt"]))(jnp.asarray(GOALS))
    nowhere = np.ones((T, B), bool)
    want = expected(unrolls.scan, GOALS, None, nowhere)[0]
    np.testing.assert_allclose(found, 2 * want, rtol=1e-10)


def test_targets_that_nothing_reads_have_none():
    params, carry = PARAMS, jnp.zeros((B, H))

    def loss(targets):
        return unrolls.bptt(CELL, params, carry, XS, Side(targets=targets))[1].sum()

    assert not jax.grad(loss)(jnp.asarray(GOALS)).any()


@hlo_as_users
@pytest.mark.parametrize(
    "name",
    [
        tiers.slow(name, name == "bptt")
        for name in ("bptt", "checkpointed", "truncated, overlapping")
    ],
)
def test_it_costs_nothing_where_nobody_asks(name):
    """The compiled gradient is that of a layer which leaves it out."""

    def without(*arguments):
        return *LAYER.bwd(*arguments)[:3], None

    def program(layer):
        def loss(params, targets, weights):
            side = Side(targets=Weighted(targets, weights))
            carry = jnp.zeros((B, H))
            return UNROLLS[name](layer, params, carry, XS, side)[1].sum()

        at = PARAMS, GOALS, WEIGHTS["each step"]
        compiled = jax.jit(jax.grad(loss)).lower(*at).compile()
        cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
        return cost["flops"], cost["bytes accessed"], memory.temp_size_in_bytes

    assert program(LAYER) == program(LAYER._replace(bwd=without))


@pytest.mark.parametrize("name", [n for n in UNROLLS if n != "randomly_truncated"])
def test_a_constant_that_is_differentiated_is_refused(name):
    layer = layers.recurrent(CELL, on_d_carry=unrolls.times)
    params, carry = PARAMS, jnp.zeros((B, H))

    def loss(aux):
        return UNROLLS[name](layer, params, carry, XS, Side(aux=aux))[1].sum()

    for mode in (jax.grad, jax.jacfwd):
        with pytest.raises(
            TypeError, match="side.aux: expected a constant, got float64"
        ):
            jax.eval_shape(mode(loss), jnp.ones(T))
    assert jax.eval_shape(loss, jnp.ones(T)).shape == ()
