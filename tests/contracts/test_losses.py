"""Losses of each step and example: `layers.with_losses` against `jax.grad` of a plain scan.

The reference knows of no layer: the cell's outputs, their squared errors, times weights,
zero in the padding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import Side, cells, layers, objectives, unrolls
from bptt_jax.types import Weighted
from support import tiers
from support.gradients import quick_jit
from support.reference import reference_jit

I, H = 3, 4
CELL = cells.elman(I, H)
LAYER = layers.with_losses(CELL, objectives.squared_error)
UNROLLS = {
    "bptt": unrolls.bptt,
    "bptt, in stretches": functools.partial(unrolls.bptt, chunk=3),
    "checkpointed": functools.partial(unrolls.checkpointed, chunk=2, slots=2),
    "truncated": functools.partial(unrolls.truncated, window=8, stride=1),
    "both_modes": functools.partial(unrolls.both_modes, chunk=3),
    "reverse": unrolls.reverse(unrolls.bptt),
    "scan": unrolls.scan,
}
CASES = [(7, (3,)), (1, ()), (2, (2, 2))]
"""Each length and rank of a batch once; with one another they are before a release."""


def problem(T, batch):
    """What is differentiated, the mask, and how much each loss counts for."""
    rng = np.random.default_rng(T)
    params = dict(
        w_x=rng.normal(size=(I, H)), w_h=rng.normal(size=(H, H)), b=rng.normal(size=H)
    )
    carry, xs, targets = (
        rng.normal(size=shape)
        for shape in ((*batch, H), (T, *batch, I), (T, *batch, H))
    )
    weights, counts = rng.random((T, *batch)), rng.normal(size=(T, *batch))
    mask = np.arange(T * counts[0].size).reshape(counts.shape) % 3 != 1
    return (params, carry, xs, targets, weights), mask, counts


def found(unroll, mask, params, carry, xs, targets, weights):
    """Losses by the layer, of data with NaN wherever nothing is to be read."""
    broken = lambda a: jnp.where(mask[..., None], a, jnp.nan)
    weights = jnp.where(mask, weights, jnp.nan)
    side = Side(mask=mask, targets=Weighted(broken(targets), weights))
    return unroll(LAYER, params, carry, broken(xs), side)[1]


def wanted(unroll, mask, params, carry, xs, targets, weights):
    """Losses by hand."""
    _, ys = unroll(CELL, params, carry, xs, Side(mask=mask))
    return jnp.where(mask, weights * ((ys - targets) ** 2).sum(-1), 0)


def both(losses, unroll, mask, counts):
    """A function of `problem`'s first: losses, and the gradient of a sum of them."""

    def total(*at):
        each = losses(unroll, mask, *at)
        return (counts * each).sum(), each

    return jax.value_and_grad(total, range(5), has_aux=True)


@functools.cache
def reference(T, batch, backward):
    at, mask, counts = problem(T, batch)
    plain = unrolls.reverse(unrolls.scan) if backward else unrolls.scan
    (_, losses), grads = reference_jit(both(wanted, plain, mask, counts))(*at)
    return losses, grads


@pytest.mark.parametrize(
    ("name", "T", "batch"),
    [tiers.slow((name, *case), name == "bptt") for name in UNROLLS for case in CASES]
    + [
        pytest.param(name, T, batch, marks=pytest.mark.release)
        for name in UNROLLS
        for T in (1, 2, 7)
        for batch in ((), (3,), (2, 2))
        if (T, batch) not in CASES
    ],
)
def test_losses_and_gradients_are_those_of_a_plain_loop(name, T, batch):
    at, mask, counts = problem(T, batch)
    (_, each), grads = quick_jit(both(found, UNROLLS[name], mask, counts))(*at)
    losses, want = reference(T, batch, name == "reverse")
    assert each.shape == (T, *batch)
    assert (np.asarray(each)[~mask] == 0).all()
    np.testing.assert_allclose(each, losses, rtol=1e-12)
    leaves = [jax.tree.leaves(tree) for tree in (grads, want)]
    assert all(np.abs(a).max() > 1e-4 for a in leaves[1])
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_their_sum_over_examples_is_with_loss():
    at, mask, _ = problem(7, (3,))
    params, carry, xs, targets, weights = at
    side = Side(mask=mask, targets=Weighted(targets, weights[:, 0]))
    apart, summed = (
        unrolls.bptt(make(CELL, objectives.squared_error), params, carry, xs, side)[1]
        for make in (layers.with_losses, layers.with_loss)
    )
    np.testing.assert_allclose(apart.sum(1), summed, rtol=1e-12)


def test_in_a_model_with_a_readout_and_other_options():
    """The losses are those of the last layer, and the parts within can be changed."""
    model = layers.stack(cells.elman(I, H), layers.dense(H, 5))
    judged = layers.with_losses(model, objectives.softmax_cross_entropy)
    (inner, carry, xs, _, _), mask, _ = problem(7, (3,))
    kernel = np.random.default_rng(3).normal(size=(H, 5))
    params, carry = (inner, dict(kernel=kernel, bias=np.ones(5))), (carry, ())
    labels, side = jnp.arange(21).reshape(7, 3) % 5, Side(mask=mask)
    _, logits = quick_jit(lambda xs: unrolls.scan(model, params, carry, xs, side))(xs)
    want = np.where(mask, objectives.softmax_cross_entropy(logits, labels), 0)

    def losses(layer):
        at = params, carry, xs, side._replace(targets=labels)
        return unrolls.bptt(layer, *at)[1]

    np.testing.assert_allclose(quick_jit(lambda: losses(judged))(), want, rtol=1e-10)
    kept = layers.with_options(judged, save=layers.GATES)
    assert jax.eval_shape(lambda: losses(kept)).shape == (7, 3)


def test_a_recurrent_layer_made_with_other_options_still_gives_losses():
    (params, carry, xs, targets, _), mask, _ = problem(7, (3,))
    kept = layers.with_options(LAYER, save=layers.GATES)
    at = params, carry, xs, Side(mask=mask, targets=targets)
    assert jax.eval_shape(lambda: unrolls.bptt(kept, *at)[1]).shape == (7, 3)


def test_losses_of_half_precision_are_float32():
    half = jnp.bfloat16
    layer = layers.with_losses(
        layers.dense(2, 3, param_dtype=half), lambda ys, targets: ys[..., 0]
    )
    params, xs = layer.init(jax.random.key(0)), jnp.ones((2, 4, 2), half)
    carry = layer.init_carry(params, (4,))
    _, losses = unrolls.bptt(layer, params, carry, xs, Side(targets=xs))
    assert (losses.dtype, losses.shape) == (jnp.float32, (2, 4))


@pytest.mark.parametrize("make", [layers.with_loss, layers.with_losses])
@pytest.mark.parametrize("what", ["mask", "weights"])
def test_losses_of_a_batch_beside_flags_of_examples_are_refused(make, what):
    """Of one step they would be multiplied, and wrong."""
    layer = make(CELL, lambda ys, targets: ((ys - targets) ** 2).sum((1, 2)))
    (params, carry, xs, targets, weights), mask, _ = problem(1, (3,))
    given = dict(mask=Side(mask=mask, targets=targets))
    given |= dict(weights=Side(targets=Weighted(targets, weights)))
    with pytest.raises(ValueError, match=r"objective: .*\[1, 3\] are, got \[1\]"):
        unrolls.bptt(layer, params, carry, xs, given[what])
