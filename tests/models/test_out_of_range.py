"""Symbols and targets that do not exist: refused where they are known, NaN where they are
traced, and not read where a step does not count.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import (
    Batch,
    Side,
    cells,
    diagnose,
    estimators,
    layers,
    models,
    objectives,
    unrolls,
)
from bptt_jax.types import Weighted

N, T, B = 5, 4, 2
MODEL = models.symbols(N, 3, (cells.elman(3, 4),), N, 4)
LOSS = layers.with_loss(MODEL, objectives.softmax_cross_entropy)
TABLE = layers.embedding(N, 3)
RIGHT = np.array([[0, 1], [2, 3], [4, 1], [3, 0]], np.int32)
UNROLLS = {
    "scan": unrolls.scan,
    "bptt": unrolls.bptt,
    "both_modes": unrolls.both_modes,
    "checkpointed": unrolls.checkpointed,
    "truncated": lambda *at: unrolls.truncated(*at, window=2),
    "reverse": unrolls.reverse(unrolls.bptt),
}
BAD = [-1, N, -100, 2**31 - 1]


def with_bad(bad, at=(2, 1)):
    tokens = RIGHT.copy()
    tokens[at] = bad
    return tokens


def params_of(layer):
    params = layer.init(jax.random.key(0))
    return jax.tree.map(lambda a: a.astype(jnp.float64), params)


def carry_of(layer, params):
    return layer.init_carry(params, (B,))


@pytest.mark.parametrize("name", UNROLLS)
def test_an_unroll_refuses_a_symbol_that_is_known_and_names_the_first(name):
    params = params_of(MODEL)
    at = MODEL, params, carry_of(MODEL, params)
    where = r"\[1, 1\]" if name == "reverse" else r"\[2, 1\]"  # as it is read
    message = rf"embedding: expected symbols from 0 to 4, got -1 at {where}"
    with pytest.raises(ValueError, match=message):
        UNROLLS[name](*at, with_bad(-1))
    with pytest.raises(ValueError, match=message):  # xs are known under grad, too
        jax.grad(lambda p: UNROLLS[name](MODEL, p, at[2], with_bad(-1))[1].sum())(
            params
        )


def test_every_way_to_a_model_refuses_it():
    params, bad = params_of(MODEL), with_bad(9)
    batch = Batch(bad, Side(targets=RIGHT))
    estimator = estimators.exact(MODEL, objectives.softmax_cross_entropy)
    with pytest.raises(ValueError, match=r"embedding: .* got 9 at \[2, 1\]"):
        estimator.grad(params, (), batch, jax.random.key(0))
    watch = lambda seen: (unrolls.contract(seen), seen.d_states)
    with pytest.raises(ValueError, match=r"embedding: .* got 9 at \[2, 1\]"):
        unrolls.pullback(MODEL, params, carry_of(MODEL, params), bad, watch=watch)
    with pytest.raises(ValueError, match=r"embedding: .* got 9 at \[2, 0\]"):
        models.generate(MODEL, params, bad[:, 1], 3, 1.0, jax.random.key(0))
    with pytest.raises(ValueError, match=r"embedding: .* got 9 at \[2, 1\]"):
        TABLE.fwd(params[0], (), bad, Side())
    flow = diagnose.gradient_flow(
        MODEL, objectives.softmax_cross_entropy, params, batch
    )
    assert np.isnan(flow.loss)  # compiled: traced


@jax.jit
def rows_and_gradient(params, tokens, cotangents):
    def run(params):
        return unrolls.bptt(TABLE, params, (), tokens)[1]

    ys, pull = jax.vjp(run, params)
    return ys, pull(cotangents)[0]


@pytest.mark.parametrize("bad", BAD)
def test_a_traced_symbol_is_nan_and_touches_no_row(bad):
    params = params_of(TABLE)
    cotangents = np.random.default_rng(0).normal(size=(T, B, 3))
    ys, grads = rows_and_gradient(params, with_bad(bad), cotangents)
    rows, want = np.asarray(params["embedding"])[RIGHT], np.zeros((N, 3))
    outside = np.zeros((T, B), bool)
    outside[2, 1] = True
    rows[outside] = np.nan
    np.testing.assert_array_equal(ys, rows)
    np.add.at(want, RIGHT[~outside], cotangents[~outside])
    np.testing.assert_allclose(grads["embedding"], want, rtol=1e-14)


def test_what_depends_on_it_is_nan_and_nothing_else():
    params = params_of(MODEL)
    run = jax.jit(
        lambda xs: unrolls.bptt(MODEL, params, carry_of(MODEL, params), xs)[1]
    )
    found = np.isnan(np.asarray(run(with_bad(-1)))).all(-1)
    np.testing.assert_array_equal(found, [[0, 0], [0, 0], [0, 1], [0, 1]])
    right = run(RIGHT)
    np.testing.assert_array_equal(run(with_bad(-1))[:2], right[:2])


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint32, np.int64])
def test_symbols_of_any_integer_dtype(kind):
    table = layers.embedding(200, 2)  # more rows than int8 can count
    params = params_of(table)
    tokens = np.array([[0], [100], [127]], kind)
    ys = jax.jit(lambda xs: unrolls.bptt(table, params, (), xs)[1])(tokens)
    want = np.asarray(params["embedding"])[np.asarray(tokens, int)]
    np.testing.assert_array_equal(ys, want)


def test_a_masked_symbol_is_not_read():
    """Whatever stands there: zeros come out, and no row is trained for them."""
    params, mask = params_of(TABLE), np.ones((T, B), bool)
    mask[2, 1] = mask[3, 0] = False

    def run(params, tokens):
        return unrolls.bptt(TABLE, params, (), tokens, Side(mask=mask))[1]

    for run_it in (run, jax.jit(run)):
        ys = run_it(params, with_bad(-100))
        want = np.where(mask[..., None], np.asarray(params["embedding"])[RIGHT], 0)
        np.testing.assert_array_equal(ys, want)
        grads = jax.grad(lambda p, r=run_it: r(p, with_bad(-100)).sum())(params)
        counts = np.bincount(RIGHT[mask], minlength=N)
        np.testing.assert_array_equal(grads["embedding"][:, 0], counts)
    with pytest.raises(ValueError, match=r"got -100 at \[0, 0\]"):  # but a real one is
        run(params, np.full((T, B), -100))


# Targets


def losses(params, targets, mask=None):
    side = Side(targets=targets, mask=mask)
    return unrolls.bptt(LOSS, params, carry_of(LOSS, params), RIGHT, side)[1]


@pytest.mark.parametrize("bad", BAD)
def test_a_target_that_is_known_is_refused_and_named(bad):
    message = rf"labels: expected integers from 0 to 4, got {bad} at \[2, 1\]"
    params = params_of(LOSS)
    with pytest.raises(ValueError, match=message):
        losses(params, with_bad(bad))
    with pytest.raises(ValueError, match=message):
        jax.grad(lambda p: losses(p, with_bad(bad)).sum())(params)
    with pytest.raises(ValueError, match=message):
        objectives.softmax_cross_entropy(jnp.zeros((T, B, N)), with_bad(bad))


def test_a_loss_within_a_stack_and_of_ones_own_refuses_it():
    def mine(ys, targets):
        return objectives.softmax_cross_entropy(ys, targets["labels"])

    head = layers.with_loss(layers.dense(4, N), mine)
    net = layers.stack(
        layers.embedding(N, 3), layers.recurrent(cells.elman(3, 4)), head
    )
    params, side = params_of(net), Side(targets=dict(labels=with_bad(-1)))
    with pytest.raises(ValueError, match=r"labels: .* got -1 at \[2, 1\]"):
        unrolls.bptt(net, params, carry_of(net, params), RIGHT, side)


@jax.jit
@jax.grad
def gradient_of_logits(logits, labels):
    return objectives.softmax_cross_entropy(logits, labels).sum()


@pytest.mark.parametrize("bad", BAD)
def test_a_traced_target_makes_its_loss_and_the_gradient_nan(bad):
    params = params_of(LOSS)
    found = jax.jit(losses)(params, with_bad(bad))
    np.testing.assert_array_equal(np.isnan(found), [0, 0, 1, 0])
    logits = np.random.default_rng(0).normal(size=(T, B, N))
    d_ys = gradient_of_logits(logits, with_bad(bad))
    want = np.array(gradient_of_logits(logits, RIGHT))
    want[2, 1] = np.nan
    np.testing.assert_allclose(d_ys, want, rtol=1e-12)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("how", ["mask", "weight of each", "weight of a step"])
def test_a_target_that_does_not_count_is_not_read(how, traced):
    """As with PyTorch's -100: losses and gradients are those with any target there."""
    params, counts = params_of(LOSS), np.ones((T, B), bool)
    counts[2, 1] = False
    if how == "weight of a step":
        counts[2] = False
    weights = np.random.default_rng(0).random((T, B)) * counts
    if how == "weight of a step":
        weights = weights[:, 0]

    def both(params, targets):
        if how == "mask":
            return losses(params, targets, counts)
        return losses(params, Weighted(targets, weights))

    of = jax.value_and_grad(lambda *at: both(*at).sum())
    of = jax.jit(of) if traced else of
    got, want = of(params, with_bad(-100)), of(params, RIGHT)
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("name", ["squared_error", "sigmoid_cross_entropy"])
def test_nan_where_the_weight_is_zero_is_not_read(name):
    layer = layers.with_loss(layers.dense(3, 2), getattr(objectives, name))
    params, rng = params_of(layer), np.random.default_rng(0)
    xs, goals = rng.normal(size=(T, B, 3)), rng.random((T, B, 2))
    weights = np.ones((T, B))
    weights[1, 0] = 0

    def loss(params, goals):
        side = Side(targets=Weighted(goals, weights))
        return unrolls.bptt(layer, params, (), xs, side)[1].sum()

    other = goals.copy()
    other[1, 0] = np.nan
    got, want = (jax.value_and_grad(loss)(params, g) for g in (other, goals))
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_target_for_all_examples_with_a_weight_for_each():
    layer = layers.with_loss(layers.dense(3, 2), objectives.squared_error)
    params, rng = params_of(layer), np.random.default_rng(0)
    xs, goals = rng.normal(size=(T, B, 3)), rng.normal(size=(T, 2))
    weights = np.array([[1.0, 0], [0, 2], [0, 0], [1, 1]])

    def loss(goals):
        side = Side(targets=Weighted(goals, weights))
        return unrolls.bptt(layer, params, (), xs, side)[1]

    spread = np.broadcast_to(goals[:, None], (T, B, 2))
    objective = lambda ys: ((ys - spread) ** 2).sum(-1)
    want = objective(unrolls.bptt(layers.dense(3, 2), params, (), xs)[1]) * weights
    np.testing.assert_allclose(loss(goals[:, None]), want.sum(1), rtol=1e-12)


@pytest.mark.parametrize("bad", [-1.0, 2.0, 255])
def test_a_label_that_is_no_probability(bad):
    labels = np.zeros((T, B, 2), type(bad))
    labels[1, 0, 1] = bad
    logits = jnp.zeros((T, B, 2))
    with pytest.raises(ValueError, match=r"labels: expected numbers from 0 to 1, got"):
        objectives.sigmoid_cross_entropy(logits, labels)
    found = jax.jit(objectives.sigmoid_cross_entropy)(logits, labels)
    want = np.zeros((T, B), bool)
    want[1, 0] = True
    np.testing.assert_array_equal(np.isnan(found), want)
    rounded = jnp.full((1, 1), 1.0078125, jnp.bfloat16)  # the next after 1
    assert np.isfinite(objectives.sigmoid_cross_entropy(rounded, rounded)).all()
