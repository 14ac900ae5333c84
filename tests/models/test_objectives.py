"""Objectives against their formulas in NumPy, in every dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import layers, objectives, unrolls
from bptt_jax.types import Layer, Side, Weighted
from support.gradients import quick_jit

K, B, O = 5, 3, 4
rng = np.random.default_rng(0)
YS = 2 * rng.normal(size=(K, B, O))
LABELS = rng.integers(0, O, (K, B)).astype(np.int32)
TARGETS = rng.normal(size=(K, B, O))
BITS = rng.random((K, B, O))


def softmax_cross_entropy(ys, labels):
    likely = np.exp(ys) / np.exp(ys).sum(-1, keepdims=True)
    return -np.log(np.take_along_axis(likely, labels[..., None], -1))[..., 0]


def squared_error(ys, targets):
    return ((ys - targets) ** 2).sum(-1)


def sigmoid_cross_entropy(ys, bits):
    p = 1 / (1 + np.exp(-ys))
    return -(bits * np.log(p) + (1 - bits) * np.log(1 - p)).sum(-1)


MEMBERS = {
    "softmax_cross_entropy": (softmax_cross_entropy, LABELS),
    "squared_error": (squared_error, TARGETS),
    "sigmoid_cross_entropy": (sigmoid_cross_entropy, BITS),
}
every_member = pytest.mark.parametrize("name", MEMBERS)


def test_every_objective_is_here():
    public = {
        name
        for name, value in vars(objectives).items()
        if callable(value) and not name.startswith("_") and name != "Array"
    }
    assert public - {"at_last_step"} == set(MEMBERS)  # that makes weights


@every_member
def test_formula(name):
    formula, targets = MEMBERS[name]
    found = getattr(objectives, name)(jnp.asarray(YS), jnp.asarray(targets))
    np.testing.assert_allclose(found, formula(YS, targets), rtol=1e-12)
    assert found.dtype == jnp.float64


@every_member
def test_each_step_alone(name):
    """Any number of batch axes, and a step's loss knows of no other step."""
    _, targets = MEMBERS[name]
    f = quick_jit(getattr(objectives, name))
    whole = f(jnp.asarray(YS), jnp.asarray(targets))
    for k in range(K):
        one = f(jnp.asarray(YS[k, 0])[None], jnp.asarray(targets[k, 0])[None])
        np.testing.assert_allclose(one, whole[k, :1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@every_member
def test_at_least_float32(name, dtype):
    formula, targets = MEMBERS[name]
    ys = jnp.asarray(YS, dtype)
    kind = jnp.float32 if targets.dtype == np.float64 else targets.dtype
    found = quick_jit(getattr(objectives, name))(ys, jnp.asarray(targets, kind))
    assert found.dtype == jnp.float32
    # the formula of the rounded outputs, to the rounding of float32
    expected = formula(np.asarray(ys, "d"), np.asarray(jnp.asarray(targets, kind)))
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def test_large_logits_stay_finite():
    ys = jnp.asarray([[1e4, -1e4, 0.0, 0.0]])
    for index, expected in ((0, 0.0), (1, 2e4)):
        losses = objectives.softmax_cross_entropy(ys, jnp.asarray([index], jnp.int32))
        np.testing.assert_allclose(losses, [expected])
    bits = jnp.asarray([[1.0, 1.0, 0.5, 0.5]])
    losses = objectives.sigmoid_cross_entropy(ys, bits)
    np.testing.assert_allclose(losses, [1e4 + 2 * np.log(2)], rtol=1e-12)


def test_optax_agrees():
    ys = jnp.asarray(YS)
    np.testing.assert_allclose(
        objectives.softmax_cross_entropy(ys, jnp.asarray(LABELS)),
        optax.softmax_cross_entropy(ys, jax.nn.one_hot(LABELS, O, dtype=ys.dtype)),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        objectives.squared_error(ys, jnp.asarray(TARGETS)),
        2 * optax.l2_loss(ys, jnp.asarray(TARGETS)).sum(-1),
        rtol=1e-12,
    )


def nothing(key):
    return ()


def no_carry(params, batch_shape):
    return ()


def fwd(params, carry, xs, side):
    return carry, xs, ()


def bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys):
    return params, d_carry, d_ys, None


IDENTITY = Layer(nothing, no_carry, fwd, bwd)


@pytest.mark.parametrize("weighted", [False, True])
@every_member
def test_padding_is_not_read(name, weighted):
    """NaN in it: the losses and the gradient there are zero, the others untouched."""
    formula, targets = MEMBERS[name]
    mask = rng.random((K, B)) < 0.6
    assert 0 < mask.sum() < mask.size
    weights = rng.random((K, B))
    ys = jnp.asarray(np.where(mask[..., None], YS, np.nan))
    if targets.dtype == np.float64:
        targets = np.where(mask[..., None], targets, np.nan)
    layer = layers.with_loss(IDENTITY, getattr(objectives, name))
    given = Weighted(jnp.asarray(targets), jnp.asarray(np.where(mask, weights, np.nan)))
    side = Side(mask=jnp.asarray(mask), targets=given if weighted else given.targets)

    def both(ys):
        _, losses, residuals = layer.fwd((), (), ys, side)
        d = jnp.asarray(np.random.default_rng(1).normal(size=K))
        return losses, d, layer.bwd((), (), ys, side, losses, residuals, (), d)[2]

    losses, d, d_ys = quick_jit(both)(ys)
    counts = np.where(mask, weights if weighted else 1.0, 0)
    expected = (counts * np.nan_to_num(formula(np.asarray(ys), targets))).sum(1)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)

    def plain(clean):
        each = getattr(objectives, name)(clean, jnp.asarray(np.nan_to_num(targets)
            if targets.dtype == np.float64 else targets))  # fmt: skip
        return (d[:, None] * each * counts).sum()

    expected = jax.grad(plain)(jnp.asarray(np.where(mask[..., None], YS, 0.0)))
    np.testing.assert_allclose(d_ys, expected, rtol=1e-10, atol=1e-13)
    assert (np.asarray(d_ys)[~mask] == 0).all()
    assert (np.asarray(d_ys)[mask] != 0).all()


def last_steps(mask, resets):
    """By a loop: the last real step before each reset and before the end."""
    weights = np.zeros(mask.shape, np.float32)
    for b in range(mask.shape[1]):
        last = None
        for t in range(mask.shape[0]):
            if resets[t, b]:
                if last is not None:
                    weights[last, b] = 1
                last = None
            last = t if mask[t, b] else last
        if last is not None:
            weights[last, b] = 1
    return weights


def test_the_last_real_step():
    rng = np.random.default_rng(0)
    mask, resets = rng.random((12, 40)) < 0.5, rng.random((12, 40)) < 0.2
    mask[:, 0], mask[:, 1] = False, True
    none = np.zeros_like(resets)
    for given, want in ((None, none), (resets, resets)):
        found = objectives.at_last_step(mask, given)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, last_steps(mask, want))
    assert objectives.at_last_step(mask)[:, 0].sum() == 0
    one = objectives.at_last_step(jnp.ones(5, bool))
    np.testing.assert_array_equal(one, [0, 0, 0, 0, 1])


def test_what_is_no_mask_is_named():
    with pytest.raises(TypeError, match="mask: expected bool, got float"):
        objectives.at_last_step(jnp.ones((3, 2)))
    with pytest.raises(
        ValueError, match=r"resets: expected \[3, 2\], as mask, got \[3\]"
    ):
        objectives.at_last_step(jnp.ones((3, 2), bool), jnp.ones(3, bool))
    with pytest.raises(ValueError, match=r"mask: expected \[T, ...\], got \[\]"):
        objectives.at_last_step(jnp.asarray(True))


def test_a_stack_that_is_given_another_backward_keeps_it_under_a_loss():
    """And another first carry: its parts do not know of either."""
    plain = layers.stack(layers.dense(3, 2), layers.dense(2, O))

    def bwd(*arguments):
        d_params, *others = plain.bwd(*arguments)
        return jax.tree.map(lambda a: 2 * a, d_params), *others

    xs = jnp.ones((K, B, 3), jnp.float32)
    side = Side(targets=jnp.asarray(TARGETS, jnp.float32))
    params = plain.init(jax.random.key(0))

    @jax.jit
    def gradients(params):
        def of(layer):
            layer = layers.with_loss(layer, objectives.squared_error)
            carry = layer.init_carry(params, (B,))
            return lambda p: unrolls.bptt(layer, p, carry, xs, side)[1].sum()

        return [jax.grad(of(net))(params) for net in (plain, plain._replace(bwd=bwd))]

    once, twice = gradients(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(2 * a, b, rtol=1e-6), once, twice
    )
