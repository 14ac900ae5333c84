"""Stored states, episodes inside a rollout, several sequences in a row.

The reference is `unrolls.scan` of each part by itself.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, estimators, layers, objectives, sequences, unrolls
from bptt_jax.types import Batch, Side, Weighted
from support.gradients import QUICK, error, pulled_back, quick_jit, worst

I, H, TOLERANCE = 3, 4, 1e-10
CELLS = {
    "lstm": lambda: cells.lstm(I, H, param_dtype=jnp.float64),
    "elman with a learned carry": lambda: cells.learned_carry(
        cells.elman(I, H, param_dtype=jnp.float64)
    ),
}
every_cell = pytest.mark.parametrize("name", CELLS)
CHUNKED = functools.partial(unrolls.bptt, chunk=3)


@functools.cache
def parameters(name: str):
    """With noise, so that a learned carry and the biases are not zero."""
    with jax.numpy_dtype_promotion("standard"):
        made = CELLS[name]().init(jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: a + 0.4 * rng.normal(size=a.shape), made)


def carry_of(cell, params, batch, seed=5):
    """A state that is not the initial one."""
    rng, fresh = np.random.default_rng(seed), cell.init_carry(params, batch)
    return jax.tree.map(lambda a: a + rng.normal(size=a.shape), fresh)


def draw(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def cut(tree, start, stop):
    return jax.tree.map(lambda a: a[start:stop], tree)


def flags(*shape, seed=2, share=0.3):
    return jnp.asarray(np.random.default_rng(seed).random(shape) < share)


# Burn-in


pulled = functools.partial(pulled_back, **QUICK)


@pytest.mark.parametrize(
    ("name", "batch"), [("lstm", ()), ("elman with a learned carry", (2,))]
)
def test_after_a_burn_in_of_the_whole_past_it_is_the_run_from_the_start(name, batch):
    """Outputs, final state, and the gradient that does not reach into the past."""
    cell, params, T, K = CELLS[name](), parameters(name), 11, 7
    early = (jnp.arange(T) < K).reshape(T, *(1 for _ in batch))
    xs, resets = draw(T, *batch, I), flags(T, *batch) & early
    side = Side(resets=resets, mask=~flags(T, *batch, seed=3))

    def burnt(params, xs):
        start = cell.init_carry(params, batch)
        run = sequences.burn_in
        return run(cell, params, start, xs, side, steps=K, unroll=CHUNKED)

    def whole(params, xs, edit=lambda carry: carry):
        """The plain loop from the start; `edit` has the state where the burn-in ends."""
        start = cell.init_carry(params, batch)
        past, rest = (xs[:K], cut(side, 0, K)), (xs[K:], cut(side, K, T))
        return unrolls.scan(
            cell, params, edit(unrolls.scan(cell, params, start, *past)[0]), *rest
        )

    found = pulled(burnt, params, xs)
    stopped = functools.partial(whole, edit=jax.lax.stop_gradient)
    assert worst(found, pulled(stopped, params, xs))[0] <= TOLERANCE
    exact = pulled(whole, params, xs)
    assert (
        worst(*({k: d[k] for k in d if "out" in k} for d in (found, exact)))[0]
        <= TOLERANCE
    )
    assert worst(found, exact)[0] > 1e-3  # the gradient of the past is missing


def test_no_gradient_flows_into_the_burn_in():
    cell, params, T = CELLS["lstm"](), parameters("lstm"), 9
    carry, xs = carry_of(cell, params, (2,)), draw(T, 2, I)
    for steps in (0, 4):

        def loss(carry, xs, steps=steps):
            ys = sequences.burn_in(cell, params, carry, xs, steps=steps)[1]
            return jnp.sum(jnp.sin(ys))

        d_carry, d_xs = quick_jit(jax.grad(loss, (0, 1)))(carry, xs)
        assert all(not np.any(a) for a in jax.tree.leaves(d_carry))
        assert not np.any(d_xs[:steps])
        assert np.all(np.any(d_xs[steps:], (1, 2)))


def test_without_a_burn_in_the_stored_state_is_where_it_begins():
    cell, params, xs = CELLS["lstm"](), parameters("lstm"), draw(5, 2, I)
    carry = carry_of(cell, params, (2,))
    found = sequences.burn_in(cell, params, carry, xs, steps=0)
    want = unrolls.scan(cell, params, carry, xs)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        assert error(a, b) <= TOLERANCE


def test_a_burn_in_brings_a_stale_state_nearer_to_the_true_one():
    """What it is for: the state of older parameters, run by the newer ones."""
    cell, params = CELLS["lstm"](), parameters("lstm")
    xs = draw(60, 8, I)

    @quick_jit
    def distances(params, xs):
        old = jax.tree.map(lambda a: 0.5 * a, params)
        start = cell.init_carry(params, (8,))
        stale, _ = unrolls.bptt(cell, old, start, xs[:30])
        _, want = unrolls.bptt(cell, params, start, xs)

        def distance(steps):
            _, ys = sequences.burn_in(cell, params, stale, xs[30:], steps=steps)
            return jnp.abs(ys - want[30 + steps :])[:5].mean()

        return [distance(steps) for steps in (0, 5, 20)]

    near = distances(params, xs)
    assert near[0] > 2 * near[1] > 4 * near[2]


def test_losses_of_the_steps_after_it_alone():
    """With a layer whose outputs are losses, and keys in the side inputs."""
    cell = layers.recurrent(CELLS["lstm"]())
    layer = layers.with_loss(cell, objectives.squared_error)
    params, (xs, ts) = parameters("lstm"), (draw(6, 2, n, seed=n) for n in (I, H))
    side = Side(targets=ts, keys=jax.random.split(jax.random.key(0), 6))
    carry = carry_of(cell, params, (2,))
    _, losses = sequences.burn_in(layer, params, carry, xs, side, steps=2)
    ys = unrolls.scan(CELLS["lstm"](), params, carry, xs)[1]
    assert error(losses, ((ys - ts) ** 2).sum((1, 2))[2:]) <= TOLERANCE


@pytest.mark.parametrize("steps", [-1, 5, 2.0, True, None])
def test_a_burn_in_that_leaves_nothing_is_refused(steps):
    cell, params = CELLS["lstm"](), parameters("lstm")
    with pytest.raises(ValueError, match=r"steps: expected .* the 5 steps of xs, got"):
        carry = cell.init_carry(params, ())
        sequences.burn_in(cell, params, carry, draw(5, I), steps=steps)


def test_a_burn_in_needs_inputs():
    with pytest.raises(ValueError, match="xs: expected inputs"):
        sequences.burn_in(cells.elman(1, 2), {}, jnp.zeros(2), None, steps=1)


# Episodes


@every_cell
def test_an_episode_that_starts_in_a_rollout_is_run_as_if_it_were_alone(name):
    """Three episodes of four steps in a row, by the flags that follow each step."""
    cell, params = CELLS[name](), parameters(name)
    xs, dones = draw(12, 1, I), jnp.arange(1, 13)[:, None] % 4 == 0

    def rollout(params, xs, flags):
        carry = carry_of(cell, params, (1,))  # what an earlier episode left
        return unrolls.bptt(cell, params, carry, xs, Side(resets=flags), chunk=5)[1]

    def alone(params, xs):
        rows = jnp.swapaxes(xs.reshape(3, 4, I), 0, 1)
        _, ys = unrolls.scan(cell, params, cell.init_carry(params, (3,)), rows)
        return jnp.swapaxes(ys, 0, 1).reshape(12, 1, H)

    @quick_jit
    def gradient(params, xs, flags):
        ys, back = jax.vjp(lambda *a: rollout(*a, flags), params, xs)
        return ys, back(draw(12, 1, H, seed=9))

    @quick_jit
    def wanted(params, xs):
        ys, back = jax.vjp(alone, params, xs)
        return ys, back(draw(12, 1, H, seed=9))

    want = jax.tree.leaves(wanted(params, xs))

    def off(flags):
        found = jax.tree.leaves(gradient(params, xs, flags))
        return max(map(error, found, want))

    starts = sequences.episode_starts(dones, np.array([True]))
    assert off(starts) <= TOLERANCE
    for wrong in (dones, starts.at[0].set(False), jnp.zeros_like(starts)):
        assert off(wrong) > 1e-2


def test_flags_of_consecutive_rollouts_are_those_of_one():
    dones, first = flags(9, 2), jnp.array([True, False])
    whole = sequences.episode_starts(dones, first)
    parts = [
        sequences.episode_starts(dones[:4], first),
        sequences.episode_starts(dones[4:], dones[3]),
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert 0 < whole.sum() < whole.size


@pytest.mark.parametrize(
    ("dones", "before", "message"),
    [
        (np.zeros((3, 2)), np.zeros(2, bool), "dones: expected bool, got float64"),
        (np.zeros((3, 2), bool), np.zeros(2, int), "before: expected bool, got int64"),
        (np.zeros((3, 2), bool), np.zeros(3, bool), r"before: expected \[2\].*\[3\]"),
        (np.zeros((0, 2), bool), np.zeros(2, bool), "dones: expected .* at least 1"),
    ],
)
def test_flags_that_do_not_fit_are_refused(dones, before, message):
    with pytest.raises((TypeError, ValueError), match=message):
        sequences.episode_starts(dones, before)


# Packed rows


LENGTHS = (3, 7, 1, 2, 5, 1, 4)
RUNS = {
    "bptt": (CHUNKED, unrolls.scan),
    "reverse": (unrolls.reverse(CHUNKED), unrolls.reverse(unrolls.scan)),
}


def ragged(*lengths, features=I):
    return [np.asarray(draw(n, features, seed=i)) for i, n in enumerate(lengths)]


def one_each(sequences, length):
    """A row for each sequence, padded with NaN: `[length, N, ...]`."""
    pad = [(0, 0)] * (sequences[0].ndim - 1)
    rows = [
        np.pad(s, [(0, length - len(s)), *pad], constant_values=np.nan)
        for s in sequences
    ]
    return jnp.asarray(np.stack(rows, 1))


@pytest.mark.parametrize(
    ("name", "run"), [("lstm", "bptt"), ("elman with a learned carry", "reverse")]
)
def test_packed_rows_are_the_sequences_alone(name, run):
    """Outputs, losses, and the gradients of parameters and inputs."""
    cell, params, T = CELLS[name](), parameters(name), 8
    each, targets = ragged(*LENGTHS), ragged(*LENGTHS, features=H)
    batch, segments = sequences.packed(each, targets, length=T)
    assert batch.inputs.shape == (T, 3, I)  # a row each would be seven
    run, plain = RUNS[run]

    def gradient(unroll):
        def losses(params, xs, side):
            start = cell.init_carry(params, (xs.shape[1],))
            ys = unroll(cell, params, start, xs, side._replace(targets=None))[1]
            off = jnp.where(side.mask[..., None], ys - side.targets, 0.0)
            return (off**2).sum(), ys

        return quick_jit(jax.value_and_grad(losses, (0, 1), has_aux=True))

    mask = unrolls.sequence_mask(jnp.asarray(LENGTHS), T)
    alone = Side(mask=mask, targets=one_each(targets, T))
    (loss, ys), (d_params, d_xs) = gradient(plain)(params, one_each(each, T), alone)
    want = [(ys[:n, i], d_xs[:n, i]) for i, n in enumerate(LENGTHS)]

    def off(side):
        at = params, *jax.tree.map(jnp.asarray, (batch.inputs, side))
        (loss_, ys), (d_params_, d_xs) = gradient(run)(*at)
        found = sequences.unpacked((ys, d_xs), segments)
        pairs = [(loss_, d_params_, found), (loss, d_params, want)]
        return max(map(error, *map(jax.tree.leaves, pairs)))

    assert off(batch.side) <= TOLERANCE
    never = np.zeros_like(batch.side.resets)
    assert off(batch.side._replace(resets=never)) > 1e-2


def test_each_sequence_is_somewhere_once_and_nothing_else_is():
    each = [{"x": np.full((n, 2), i + 1.0), "token": np.full(n, i)} for i, n in
            enumerate(LENGTHS)]  # fmt: skip
    weights = [Weighted(np.full(n, i), np.full(n, 0.5)) for i, n in enumerate(LENGTHS)]
    (inputs, side, _), segments = sequences.packed(each, weights, length=9, rows=4)
    assert segments.shape == side.mask.shape == side.resets.shape == (9, 4)
    assert (side.mask == (segments >= 0)).all()
    assert side.resets.sum() == len(LENGTHS)
    assert not inputs["x"][~side.mask].any()
    assert inputs["token"].dtype == each[0]["token"].dtype
    assert (side.targets.weights == 0.5 * side.mask).all()
    for a, b in zip(sequences.unpacked(inputs, segments), each, strict=True):
        np.testing.assert_array_equal(a["x"], b["x"])
        np.testing.assert_array_equal(a["token"], b["token"])
    full, _ = sequences.packed(
        each, length=9
    )  # 23 steps do not fit in two rows of nine
    assert full.side.mask.shape == (9, 3)


def test_an_estimator_takes_it():
    """The mean over real steps is that of all sequences' steps."""
    each, targets = ragged(*LENGTHS), ragged(*LENGTHS, features=H)
    model, params = layers.recurrent(CELLS["lstm"]()), parameters("lstm")
    estimator = estimators.exact(model, objectives.squared_error)
    mask = unrolls.sequence_mask(jnp.asarray(LENGTHS), 8)
    alone = Side(mask=mask, targets=one_each(targets, 8))
    grad = quick_jit(estimator.grad)
    found = [
        grad(params, (), jax.tree.map(jnp.asarray, batch), jax.random.key(0))
        for batch in (
            sequences.packed(each, targets, length=8)[0],
            Batch(one_each(each, 8), alone),
        )
    ]
    assert found[0].steps == found[1].steps == sum(LENGTHS)
    for a, b in zip(*(jax.tree.leaves(f[:2]) for f in found), strict=True):
        assert error(a, b) <= TOLERANCE


BAD = {
    "none": (([],), dict(length=4), "sequences: expected at least one"),
    "too long": ((ragged(2, 5),), dict(length=4), r"sequences\[1\]: .*length=4"),
    "empty": ((ragged(2, 0),), dict(length=4), r"sequences\[1\]: expected one length"),
    "a scalar": (([np.ones(())],), dict(length=4), r"sequences\[0\]: expected one"),
    "two lengths": (
        ([(np.ones(2), np.ones(3))],), dict(length=4), r"sequences\[0\]: expected one"
    ),
    "unlike": (
        ([np.ones((2, 3)), np.ones((2, 4))],), dict(length=4), r"like sequences\[0\]"
    ),
    "another dtype": (
        ([np.ones(2), np.ones(2, int)],), dict(length=4), r"sequences\[1\].*int64"
    ),
    "targets": ((ragged(2, 3), ragged(2, 2)), dict(length=4), "targets: expected the"),
    "rows": ((ragged(3, 3),), dict(length=4, rows=1), "rows: expected 2, .* got 1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_packed_is_refused(kind):
    arguments, options, message = BAD[kind]
    with pytest.raises(ValueError, match=message):
        sequences.packed(*arguments, **options)


def test_what_was_not_packed_like_this_is_refused():
    _, segments = sequences.packed(ragged(2, 3), length=4)
    with pytest.raises(ValueError, match=r"ys: expected the steps and rows \[4, 2\]"):
        sequences.unpacked(np.ones((4, 3)), segments)
