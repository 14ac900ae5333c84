"""Estimators against `jax.grad` of the loss written out, through `unrolls.scan`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, diagnose, estimators, models, objectives, unrolls
from bptt_jax.types import Batch, Side, Weighted
from support import tiers
from support.gradients import quick_jit, worst

T, B, I, H, O = 7, 3, 3, 4, 2
TOLERANCE = 1e-10
OBJECTIVE = objectives.squared_error
KEY = jax.random.key(7)


@functools.cache
def model(dropout=0.0):
    cell = cells.learned_carry(cells.elman(I, H))
    return models.features((cell,), O, H, dropout=dropout)


@functools.cache
def parameters():
    with jax.numpy_dtype_promotion("standard"):
        made = model().init(jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda a: jnp.asarray(np.asarray(a, "d") + 0.3 * rng.normal(size=a.shape)), made
    )


def batch_of(kind, seed=0, steps=T) -> Batch:
    rng = np.random.default_rng(seed)
    inputs, targets = rng.normal(size=(steps, B, I)), rng.normal(size=(steps, B, O))
    mask, weights = rng.random((steps, B)) < 0.6, rng.random((steps, B))
    side = Side()
    if "mask" in kind:
        inputs = np.where(mask[..., None], inputs, np.nan)
        targets = np.where(mask[..., None], targets, np.nan)
        side = side._replace(mask=jnp.asarray(mask))
    if "steps" in kind:  # the same steps of all examples
        inputs = np.where(mask[:, :1, None], inputs, np.nan)
        targets = np.where(mask[:, :1, None], targets, np.nan)
        side = side._replace(mask=jnp.asarray(mask[:, 0]))
    if "resets" in kind:
        side = side._replace(resets=jnp.asarray(rng.random((steps, B)) < 0.3))
    targets = jnp.asarray(targets)
    given = Weighted(targets, jnp.asarray(weights)) if "weights" in kind else targets
    return Batch(jnp.asarray(inputs), side._replace(targets=given))


def counts_of(batch) -> np.ndarray:
    """How much each step of each example counts, as the mean over them is defined."""
    counts = np.ones(batch.inputs.shape[:2])
    if isinstance(batch.side.targets, Weighted):
        counts = np.asarray(batch.side.targets.weights)
    if batch.side.mask is not None:
        mask = np.asarray(batch.side.mask)
        counts = np.where(mask if mask.ndim == 2 else mask[:, None], counts, 0)
    return counts


def explicit(params, carry, batch, layer=None):
    """`(loss, carry)`, of outputs that the padding is taken from by hand."""
    side = batch.side._replace(targets=None)
    carry, ys = unrolls.scan(layer or model(), params, carry, batch.inputs, side)
    targets = batch.side.targets
    targets = targets.targets if isinstance(targets, Weighted) else targets
    counts = counts_of(batch)
    off = (counts == 0)[..., None]
    ys, targets = (jnp.where(off, 0.0, a) for a in (ys, targets))
    return (((ys - targets) ** 2).sum(-1) * counts).sum() / counts.sum(), carry


def flat(tree) -> dict:
    return {
        jax.tree_util.keystr(path): a
        for path, a in jax.tree_util.tree_leaves_with_path(tree)
    }


def same(a, b):
    error, name = worst(flat(a), flat(b))
    assert error <= TOLERANCE, name


KINDS = ("plain", "mask", "weights", "mask, weights")
RICH = ("whole steps", "resets, mask, weights")
every_kind = pytest.mark.parametrize(
    "kind", [*(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS), *RICH]
)


@pytest.mark.parametrize("kind", KINDS + RICH)
def test_real_steps(kind):
    batch = batch_of(kind)
    found = estimators.real_steps(batch)
    np.testing.assert_allclose(found, counts_of(batch).sum(), rtol=1e-6)


@every_kind
def test_exact(kind):
    params, batch = parameters(), batch_of(kind)
    estimator = estimators.exact(model(), OBJECTIVE)
    state = estimator.init(params, batch)
    loss, grads, after, steps, _ = quick_jit(estimator.grad)(params, state, batch, KEY)

    def by_hand(params):  # the initial carry is a parameter, too
        carry = model().init_carry(params, (B,))
        return explicit(params, carry, batch)[0]

    value, expected = quick_jit(jax.value_and_grad(by_hand))(params)
    np.testing.assert_allclose(loss, value, rtol=TOLERANCE)
    same(grads, expected)
    assert after == state == ()
    np.testing.assert_allclose(steps, counts_of(batch).sum(), rtol=1e-6)
    assert any(np.abs(a).max() > 1e-3 for a in jax.tree.leaves(expected))


@pytest.mark.parametrize(
    "kind", [pytest.param("plain", marks=pytest.mark.slow), "resets, mask, weights"]
)
def test_stream(kind):
    """The gradient stops at the beginning of a window; the carry does not."""
    params = parameters()
    batches = [batch_of(kind, seed, steps) for seed, steps in ((0, T), (1, T), (2, T))]
    estimator = estimators.stream(model(), OBJECTIVE)
    grad = quick_jit(estimator.grad)
    state = carry = estimator.init(params, batches[0])
    same(state, model().init_carry(params, (B,)))
    for batch in batches:
        loss, grads, state, *_ = grad(params, state, batch, KEY)

        def by_hand(params, carry, batch=batch):
            return explicit(params, jax.lax.stop_gradient(carry), batch)

        (value, carry), expected = quick_jit(jax.value_and_grad(by_hand, has_aux=True))(
            params, carry
        )
        np.testing.assert_allclose(loss, value, rtol=TOLERANCE)
        same(grads, expected)
        same(state, carry)


def test_windows_in_a_row_are_one_long_run():
    params, windows = parameters(), [batch_of("plain", seed) for seed in range(3)]
    estimator = estimators.stream(model(), OBJECTIVE)
    grad, state = quick_jit(estimator.grad), estimator.init(params, windows[0])
    losses = []
    for batch in windows:
        loss, _, state, *_ = grad(params, state, batch, KEY)
        losses.append(float(loss))
    long = jax.tree.map(lambda *parts: jnp.concatenate(parts), *windows)
    value, carry = explicit(params, model().init_carry(params, (B,)), long)
    np.testing.assert_allclose(np.mean(losses), value, rtol=TOLERANCE)
    same(state, carry)


def test_no_gradient_goes_back_through_the_state():
    params, batch = parameters(), batch_of("plain")
    estimator = estimators.stream(model(), OBJECTIVE)
    carry = estimator.init(params, batch)

    def carried(params):
        state = estimator.grad(params, carry, batch, KEY)[2]
        return sum(a.sum() for a in jax.tree.leaves(state))

    for a in jax.tree.leaves(quick_jit(jax.grad(carried))(params)):
        np.testing.assert_array_equal(a, 0)


@pytest.mark.parametrize(
    "make", [estimators.stream, pytest.param(estimators.exact, marks=pytest.mark.slow)]
)
def test_dropout_draws_from_the_steps_keys(make):
    params, batch = parameters(), batch_of("mask, weights")
    params = _with_dropout(params)
    estimator = make(model(0.4), OBJECTIVE)
    grad, state = quick_jit(estimator.grad), estimator.init(params, batch)
    loss, grads, *_ = grad(params, state, batch, KEY)
    again, *_ = grad(params, state, batch, KEY)
    other, *_ = grad(params, state, batch, jax.random.key(8))
    assert float(loss) == float(again) != float(other)

    keyed = batch._replace(side=batch.side._replace(keys=jax.random.split(KEY, T)))

    def by_hand(params):
        carry = model(0.4).init_carry(params, (B,))
        carry = carry if make is estimators.exact else jax.lax.stop_gradient(carry)
        return explicit(params, carry, keyed, model(0.4))[0]

    value, expected = quick_jit(jax.value_and_grad(by_hand))(params)
    np.testing.assert_allclose(loss, value, rtol=TOLERANCE)
    same(grads, expected)
    given, *_ = grad(params, state, keyed, jax.random.key(8))
    assert float(given) == float(loss)  # a batch's own keys stay


def _with_dropout(params):
    """Parameters of the model with dropout, which has none of its own."""
    recurrent, readout = params
    return recurrent, (), readout


@pytest.mark.parametrize(
    "make", [estimators.stream, pytest.param(estimators.exact, marks=pytest.mark.slow)]
)
def test_the_unroll_is_an_argument(make):
    params, batch = parameters(), batch_of("resets, mask, weights")
    found = []
    for unroll in (unrolls.scan, functools.partial(unrolls.bptt, chunk=3)):
        estimator = make(model(), OBJECTIVE, unroll=unroll)
        state = estimator.init(params, batch)
        found.append(quick_jit(estimator.grad)(params, state, batch, KEY)[:3])
    same(*found)


def test_total_loss_is_a_sum():
    params, batch = parameters(), batch_of("mask, weights")
    total = estimators.total_loss(model(), OBJECTIVE)
    carry = estimators.init_carry(model(), params, batch)
    _, losses, steps = total(params, carry, batch)
    value, _ = explicit(params, carry, batch)
    np.testing.assert_allclose(losses / steps.astype(losses.dtype), value, rtol=1e-10)


def test_equal_arguments_are_one_estimator():
    make = lambda: estimators.exact(model(), OBJECTIVE, unroll=unrolls.scan)
    assert make() is make()


# Batches without a step that counts


def emptied(batch, how) -> Batch:
    shape = batch.inputs.shape[:2]
    if how == "weights":
        targets = Weighted(batch.side.targets, jnp.zeros(shape))
        return batch._replace(side=batch.side._replace(targets=targets))
    side = batch.side._replace(mask=jnp.zeros(shape, bool))
    return batch._replace(inputs=jnp.full_like(batch.inputs, jnp.nan), side=side)


MAKES = {
    "exact": estimators.exact,
    "stream": estimators.stream,
    "overlapping": functools.partial(estimators.stream, window=4, stride=2),
    "regularised": functools.partial(diagnose.regularised, alpha=0.5),
    "adaptive": functools.partial(
        diagnose.adaptive_truncation, windows=(2, 4), make=estimators.exact
    ),
}


@pytest.mark.parametrize(
    ("make", "how"),
    # no example is read, which each does for itself; or none counts, where they divide
    [
        tiers.slow((make, how), how == "mask" or make in ("exact", "overlapping"))
        for make in MAKES
        for how in ("mask", "weights")
    ],
)
def test_a_batch_without_a_real_step_has_no_loss_and_no_gradient(make, how):
    params, batch = parameters(), emptied(batch_of("plain", steps=6), how)
    estimator = MAKES[make](model(), OBJECTIVE)
    state = estimator.init(params, batch)
    grad = quick_jit(estimator.grad)
    loss, grads, after, steps, _ = grad(params, state, batch, KEY)
    assert float(loss) == 0
    assert all((a == 0).all() for a in jax.tree.leaves(grads))
    assert float(steps) == 0
    assert not bool(estimators.any_real(batch))
    if how == "mask":  # it is as if the batch had not been
        for a, b in zip(*map(jax.tree.leaves, (carries(state), carries(after)))):
            np.testing.assert_array_equal(a, b)


def carries(state):
    return state.carry if isinstance(state, estimators.Recent) else state


def test_what_may_be_without_a_real_step_is_known_without_arrays():
    assert estimators.any_real(batch_of("resets")) is True
    assert bool(estimators.any_real(batch_of("mask"))) is True


def test_many_real_steps_are_counted_in_float32():
    weights = jnp.ones((70_000, 1), jnp.float16)
    side = Side(targets=Weighted(jnp.zeros((70_000, 1)), weights))
    assert float(estimators.real_steps(Batch(jnp.zeros((70_000, 1, 1)), side))) == 7e4


# Windows that overlap


KINDS = ("plain", "mask, resets", "weights")
CUTS = ((4, 2), (9, 3), (3, 1))


def of_cuts() -> list:
    """Each kind with one cut, each cut with one kind; the others in the slow tier."""
    every = ((kind, *cut) for cut in CUTS for kind in KINDS)
    return [tiers.slow(at, at[0] == KINDS[1] or at[1:] == CUTS[1]) for at in every]


@pytest.mark.parametrize(("kind", "window", "stride"), of_cuts())
def test_overlapping_windows_reach_into_earlier_batches(kind, window, stride):
    """Three batches of a stream are one sequence, cut as `unrolls.truncated` cuts it."""
    batches = [batch_of(kind, seed, 6) for seed in range(3)]
    whole = jax.tree.map(lambda *a: jnp.concatenate(a), *batches)
    estimator = estimators.stream(model(), OBJECTIVE, window=window, stride=stride)
    state, found = estimator.init(parameters(), batches[0]), []
    grad = quick_jit(estimator.grad)
    for batch in batches:
        value, grads, state, steps, _ = grad(parameters(), state, batch, KEY)
        each = jax.tree.leaves((value, grads))
        found.append([float(steps) * np.asarray(a) for a in each])

    cut = functools.partial(unrolls.truncated, window=window, stride=stride)
    total = estimators.total_loss(model(), OBJECTIVE, unroll=cut)
    begin = estimators.init_carry(model(), parameters(), whole)

    def loss(params):
        carry, losses, _ = total(params, jax.lax.stop_gradient(begin), whole)
        return losses, carry

    (losses, _), d_params = quick_jit(jax.value_and_grad(loss, has_aux=True))(
        parameters()
    )
    sums = [sum(parts) for parts in zip(*found, strict=True)]
    for a, b in zip(sums, jax.tree.leaves((losses, d_params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
    if kind != "plain":
        return
    short = quick_jit(estimators.stream(model(), OBJECTIVE, window=stride).grad)
    other = short(parameters(), estimators.init_carry(model(), parameters(), batches[0]),
                  batches[0], KEY)[1]  # fmt: skip
    differs = [
        np.abs(np.asarray(a) * float(steps) - b).max()
        for a, b in zip(jax.tree.leaves(other), found[0][1:], strict=True)
    ]
    assert max(differs) > 1e-4


def test_state_of_overlapping_windows_has_a_constant_shape():
    estimator = estimators.stream(model(), OBJECTIVE, window=8, stride=2)
    batch = batch_of("plain", 0, 4)
    state = estimator.init(parameters(), batch)
    after = jax.eval_shape(estimator.grad, parameters(), state, batch, KEY)[2]
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for a, b in zip(*map(jax.tree.leaves, (state, after)), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert after.batch.inputs.shape[0] == 6


def test_before_the_first_batch_nothing_has_been_and_nothing_was_reset():
    estimator = estimators.stream(model(), OBJECTIVE, window=8, stride=2)
    state = estimator.init(parameters(), batch_of("mask, resets", 0, 4))
    side = state.batch.side
    assert not np.any(side.mask)
    assert not np.any(side.resets)


def test_windows_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="window: expected a number where stride"):
        estimators.stream(model(), OBJECTIVE, stride=2)
    with pytest.raises(ValueError, match="unroll: expected none where window"):
        estimators.stream(model(), OBJECTIVE, unroll=unrolls.scan, window=2)
    with pytest.raises(ValueError, match="stride: expected a divisor"):
        estimators.stream(model(), OBJECTIVE, window=4, stride=3)
    estimator = estimators.stream(model(), OBJECTIVE, window=4, stride=2)
    batch = batch_of("plain", 0, 5)
    state = estimator.init(parameters(), batch)
    with pytest.raises(ValueError, match="batch: expected a multiple of the stride"):
        estimator.grad(parameters(), state, batch, KEY)


BUCKETS = 1, 3, T


@functools.cache
def whole_and_cut(make):
    """The same estimator twice, of which the second cuts; and the gradients of both."""
    estimator = make(model(), OBJECTIVE)
    both = estimator, estimators.bucketed(estimator, BUCKETS)

    def grads(params, states, batch):
        pairs = zip(both, states, strict=True)
        return [one.grad(params, state, batch, KEY) for one, state in pairs]

    return both, quick_jit(grads)


@pytest.mark.parametrize("make", [estimators.exact, estimators.stream])
@pytest.mark.parametrize("longest", [1, 3, 4, T])
def test_bucketed_runs_no_more_than_the_longest_example(make, longest):
    """Beyond it there is NaN, in the masks of the others, too."""
    batch, lengths = batch_of("weights"), np.array([longest, 1, (longest + 1) // 2])
    mask = np.arange(T)[:, None] < lengths
    wild = jnp.where(mask[..., None], batch.inputs, jnp.nan)
    batch = Batch(wild, batch.side._replace(mask=jnp.asarray(mask)))
    params = parameters()

    def steps(batch):
        return jnp.float32(len(batch.inputs))

    least = next(b for b in BUCKETS if b >= longest)
    assert estimators.in_buckets(steps, batch, BUCKETS) == least
    both, grads = whole_and_cut(make)
    whole, some = grads(params, [one.init(params, batch) for one in both], batch)
    assert whole.steps == some.steps > 0
    pairs = (jax.tree.leaves((a.loss, a.grads, a.state)) for a in (some, whole))
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)


def test_without_a_mask_or_a_choice_nothing_is_cut():
    estimator, batch = estimators.exact(model(), OBJECTIVE), batch_of("mask")
    assert estimators.bucketed(estimator, (T,)) is estimator
    assert estimators.in_buckets(lambda b: b, batch, ()) is batch
    plain = batch_of("")
    assert estimators.in_buckets(lambda b: b, plain, (2, T)) is plain


@pytest.mark.parametrize("buckets", [(T, 2), (2, 2, T), (2, T - 1), (0, T)])
def test_buckets_that_are_none(buckets):
    cut = estimators.bucketed(estimators.exact(model(), OBJECTIVE), buckets)
    with pytest.raises(ValueError, match=f"buckets: expected ascending.*batch's {T}"):
        cut.grad(parameters(), (), batch_of("mask"), KEY)
