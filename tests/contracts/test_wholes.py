"""Models of sections: values and gradients of all members, beside real steps run alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import Side, cells, layers, loops, models, unrolls, verify, wholes
from bptt_jax.types import Whole
from support import tiers
from support.gradients import initial, quick_jit
from support.wholes import POOLED, WHOLES, reference

UNROLLS = {
    "bptt": partial(unrolls.bptt, chunk=3),
    "both_modes": partial(unrolls.both_modes, chunk=3),
    "checkpointed": partial(unrolls.checkpointed, chunk=2, slots=2),
    "scan": unrolls.scan,
}


def given(name: str, T: int, batch: tuple[int, ...], masked: bool):
    """Model, params, carry, inputs and mask; NaN at masked steps, holes among them."""
    rng = np.random.default_rng(T)
    model = WHOLES[name].make()
    with jax.numpy_dtype_promotion("standard"):
        params = initial(model, (0, 1))
    params = jax.tree.map(lambda a: a + 0.3 * rng.normal(size=a.shape), params)
    carry = model.init_carry(params, batch)
    carry = jax.tree.map(lambda a: rng.normal(size=a.shape), carry)
    xs, mask = rng.normal(size=(T, *batch, 3)), None
    if masked:
        mask = rng.random((T, *batch)) < 0.6
        mask[rng.integers(T, size=batch), *np.indices(batch)] = True
        xs = np.where(mask[..., None], xs, np.nan)
    return model, params, carry, xs, mask


def both(name, T, batch, masked, unroll):
    """`(values, gradients)` of the unroll and of the reference, of one program."""
    model, params, carry, xs, mask = given(name, T, batch, masked)
    real = np.ones((T, *batch), bool) if mask is None else mask

    def cotangents(features):
        steps = 1 if name in POOLED else T
        d_ys = np.random.default_rng(2).normal(size=(steps, *batch, features))
        # what padding gives out is nobody's
        return d_ys if name in POOLED else np.where(real[..., None], d_ys, 0)

    def found(params, carry, xs):
        ys = unroll(model, params, carry, xs, Side(mask=mask))[1]
        d_ys = cotangents(ys.shape[-1])
        assert ys.shape == d_ys.shape
        return (ys * d_ys).sum()

    def wanted(params, carry, xs):
        total = 0.0
        for at in np.ndindex(*batch):
            steps = np.flatnonzero(real[:, *at])
            own = jax.tree.map(lambda c, at=at: c[at], carry)
            ys = reference(model, params, xs[steps, *at], own)
            d_ys = cotangents(ys.shape[-1])
            d = d_ys[:, *at] if name in POOLED else d_ys[steps, *at]
            total += (ys * d).sum()
        return total

    each = [jax.value_and_grad(f, (0, 1, 2)) for f in (found, wanted)]
    return quick_jit(lambda *at: [f(*at) for f in each])(params, carry, xs)


CASES = [(7, (2,), True)]
MORE = [(1, (), False), (2, (2, 2), True)]
"""Lengths, ranks of a batch and no mask, each once; all with one another: `WHOLE`."""
WHOLE = [(2, (2,), False), (7, (), True), (7, (2, 2), True), (1, (2,), True)]


@pytest.mark.parametrize(
    ("T", "batch", "masked"),
    [
        *CASES,
        *[pytest.param(*case, marks=pytest.mark.slow) for case in MORE],
        *[pytest.param(*case, marks=pytest.mark.release) for case in WHOLE],
    ],
)
@pytest.mark.parametrize("name", WHOLES)
def test_values_and_gradients_are_those_of_the_real_steps_alone(name, T, batch, masked):
    found, wanted = both(name, T, batch, masked, UNROLLS["bptt"])
    assert max(np.abs(a).max() for a in jax.tree.leaves(wanted[1])) > 1e-3
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("unroll", [u for u in UNROLLS if u != "bptt"])
@pytest.mark.parametrize(
    "name", ["bidirectional", pytest.param("mean", marks=pytest.mark.slow)]
)
def test_through_every_unroll(name, unroll):
    found, wanted = both(name, 7, (2,), True, UNROLLS[unroll])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


POOLS = dict(
    last=wholes.last,
    mean=wholes.mean,
    attention_pool=partial(wholes.attention_pool, 3, param_dtype=jnp.float64),
)


@pytest.mark.parametrize("name", POOLS)
def test_a_pool_reads_no_padding(name):
    """What comes before it may leave anything there."""
    rng, pool = np.random.default_rng(4), POOLS[name]()
    with jax.numpy_dtype_promotion("standard"):
        params = pool.init(jax.random.key(0))
    mask = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0]], bool).T
    ys = np.where(mask[..., None], rng.normal(size=(5, 2, 3)), 0)

    @quick_jit
    def gradient(params, ys):
        def loss(params, ys):
            return (pool.apply(params, ys, Side(mask=mask))[0] ** 2).sum()

        return jax.value_and_grad(loss, (0, 1))(params, ys)

    wanted = gradient(params, ys)
    found = gradient(params, np.where(mask[..., None], ys, np.nan))
    assert np.isfinite(wanted[0])
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("name", [tiers.slow(n, n == "ends") for n in WHOLES])
def test_gradients_are_those_of_differences(name):
    """Of all arguments, with random cotangents of the outputs and of the final carry."""
    some = dict(lengths=(7,), chunks=(3,), batch_shapes=((2,), (2, 2)))
    report = verify.check_member(name, WHOLES[name], sides=("mask", "both"), **some)
    assert report.truth == "differences of the forward pass"
    assert all(row.hand_truth < 1e-7 for row in report.rows if row.largest > 1e-6)


def test_a_gradient_that_is_wrong_is_found():
    @jax.custom_vjp
    def halved(a):
        return a

    halved.defvjp(lambda a: (a, None), lambda _, d: (d / 2,))
    wrong = Whole(lambda key: (), lambda params, ys, side: (halved(ys), side))
    model = models.sections(cells.elman(3, 4), wrong)
    one = dict(lengths=(2,), chunks=(None,), batch_shapes=((2,),), sides=("plain",))
    with pytest.raises(verify.GradientError, match="wrong: both"):
        verify.check(model, 3, **one)


def temporaries(model, T, unroll) -> int:
    """Bytes of the gradient of what a model gives for T steps."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((T, 8, 3), jnp.float32)

    def loss(params, xs):
        return unroll(model, params, model.init_carry(params, (8,)), xs)[1].sum()

    made = quick_jit(jax.grad(loss)).lower(params, xs).compile()
    return made.memory_analysis().temp_size_in_bytes


def test_memory_is_that_of_the_parts():
    """Two directions store twice what one does; a scan many times that."""
    steps = loops.step_by_step
    cell, run = (
        layers.recurrent(cells.lstm(3, 32), loop=steps),
        partial(unrolls.bptt, chunk=8),
    )
    both = models.sections(wholes.ends(cell, unroll=run))
    once = [
        temporaries(layers.with_options(cell, loop=steps), T, run) for T in (256, 512)
    ]
    twice = [temporaries(both, T, run) for T in (256, 512)]
    outputs = 8 * 256 * 32 * 4
    # what grows with time: beside the two, each direction's outputs and their cotangents
    assert twice[1] - twice[0] <= 2 * (once[1] - once[0]) + 6 * outputs
