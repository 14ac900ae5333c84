"""`flows`: the gradient on its way back, of parts in stacks and in sections."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import (
    Side,
    Weighted,
    cells,
    diagnose,
    layers,
    models,
    objectives,
    unrolls,
    wholes,
)
from support import watching
from support.reference import reference_jit

LOSS = objectives.squared_error
I, O, T = watching.I, watching.O, 4
dense = functools.partial(layers.dense, param_dtype=jnp.float64)


def norms(d_states) -> np.ndarray:
    """Over examples and units of all leaves, `[T]`."""
    leaves = [np.asarray(a) for a in jax.tree.leaves(d_states)]
    return np.sqrt(sum((a**2).sum(tuple(range(1, a.ndim))) for a in leaves))


@pytest.mark.parametrize("name", ["lstm", "from_step"])
def test_they_are_the_norms_of_gradient_flow(name):
    model, batch = watching.model(name), watching.batch(ragged=True, steps=T)
    params = watching.params_of(model)
    found = diagnose.flows(model, LOSS, params, batch)
    called = dict(lstm="[0] lstm", from_step="[0]")[name]
    assert list(found) == [called, "[1] gru"]
    want = diagnose.gradient_flow(model, LOSS, params, batch).d_states
    for got, states in zip(found.values(), want, strict=True):
        assert norms(states).max() > 1e-3
        np.testing.assert_allclose(got, norms(states), rtol=1e-10)


def test_names_are_those_of_the_user():
    cell = watching.cell("gru")
    assert diagnose._names.names(cell) == ["gru"]
    assert diagnose._names.names(watching.plain()) == ["cell"]
    model = layers.stack(memory=cell, out=dense(watching.H, O))
    assert diagnose._names.names(model) == ["['memory'] gru"]
    with pytest.raises(ValueError, match="recurrent part, it has none"):
        diagnose.flows(dense(I, O), LOSS, {}, watching.batch())


# In sections, beside a loop in Python with zeros added to each state

CELLS = [
    make(n, m, param_dtype=jnp.float64)
    for make, n, m in (
        (cells.elman, I, 4),
        (cells.gru, 4, 3),
        (cells.elman, 4, 3),
        (cells.elman, 6, 2),
    )
]


def sections(pool, unroll=unrolls.bptt):
    both = wholes.bidirectional(CELLS[1], CELLS[2], unroll=unroll)
    return models.sections(CELLS[0], both, *pool, CELLS[3])


def looped(cell, params, xs, mask, zeros):
    """States after each step, held where it is not real."""
    h, hs = cell.init_carry(params, mask.shape[1:]), []
    for x, m, z in zip(xs, mask, zeros, strict=True):
        h = jnp.where(m[:, None], cell.step(params, h, x)[0], h) + z
        hs.append(h)
    return jnp.stack(hs)


def loss_of(pooled: bool, params, batch, mask, weights, zeros):
    first, second, third, last = zeros
    own = params[3] if pooled else params[2]
    hs = looped(CELLS[0], params[0], jnp.nan_to_num(batch.inputs), mask, first)
    ahead = looped(CELLS[1], params[1][0], hs, mask, second)
    back = looped(CELLS[2], params[1][1], hs[::-1], mask[::-1], third[::-1])[::-1]
    hs = jnp.concatenate([ahead, back], -1)
    goals, weights = map(jnp.asarray, (batch.side.targets, weights))
    if pooled:  # the last real step, which a weight counts at
        at = mask.shape[0] - 1 - mask[::-1].argmax(0), jnp.arange(mask.shape[1])
        hs, goals, mask = hs[at][None], goals[at][None], mask.any(0)[None]
        last, weights = last[at][None], weights[at][None]
    ys = looped(CELLS[3], own, hs, mask, last)
    each = ((ys - goals) ** 2).sum(-1) * jnp.where(mask, weights, 0)
    return each.sum() / jnp.where(mask, weights, 0).sum()


@pytest.mark.parametrize("pooled", [False, True])
def test_parts_of_sections(pooled):
    """Of both directions and of a part after a pool, with padding and weights."""
    model = sections([wholes.last()] if pooled else [])
    batch = watching.batch(ragged=True, steps=T)
    rng = np.random.default_rng(4)
    weights = 0.5 + rng.random((T, 2))
    mask, goals = batch.side.mask, batch.side.targets
    side = Side(mask=mask, targets=Weighted(goals, weights))
    params = watching.params_of(model)
    found = diagnose.flows(model, LOSS, params, batch._replace(side=side))
    after = "[3] elman" if pooled else "[2] elman"
    assert list(found) == ["[0] elman", "[1][0] gru", "[1][1] elman", after]

    zeros = [np.zeros((T, 2, n)) for n in (4, 3, 3, 2)]
    loss = functools.partial(loss_of, pooled, params, batch, mask, weights)
    for got, d in zip(
        found.values(), reference_jit(jax.grad(loss))(zeros), strict=True
    ):
        assert norms(d).max() > 1e-4
        np.testing.assert_allclose(got, norms(d), rtol=1e-9, atol=1e-13)


def test_an_unroll_that_nothing_passes_by_is_refused():
    model, batch = sections([], unrolls.scan), watching.batch()
    with pytest.raises(ValueError, match=r"model: \[1\]\[0\] gru is run"):
        diagnose.flows(model, LOSS, watching.params_of(model), batch)


@pytest.mark.parametrize("unroll", [unrolls.both_modes, unrolls.checkpointed])
def test_through_other_unrolls(unroll):
    batch = watching.batch(steps=T)
    params = watching.params_of(sections([]))
    found, want = (
        diagnose.flows(sections([], run), LOSS, params, batch)
        for run in (unroll, unrolls.bptt)
    )
    for name in want:
        np.testing.assert_allclose(found[name], want[name], rtol=1e-10)
