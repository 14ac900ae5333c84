"""Models of sections: targets, keys, who takes them, who refuses them, and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import (
    Batch,
    Side,
    Weighted,
    cells,
    diagnose,
    estimators,
    layers,
    models,
    objectives,
    recipes,
    sequences,
    unrolls,
    wholes,
)
from bptt_jax.types import Whole
from support.gradients import initial, quick_jit
from support.wholes import OWN, POOLED, WHOLES

T, B, I, O = 5, 4, 3, 2
KEY = jax.random.key(0)
POOL = models.sections(cells.elman(I, 4), wholes.last(), layers.dense(4, O))
ERROR = objectives.squared_error


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ones(*shape):
    return jnp.ones(shape, jnp.float32)


def some_mask():
    """Lengths, a hole, a sequence of one step and one of none."""
    mask = np.arange(T)[:, None] < np.array([5, 4, 1, 0])
    mask[1, 0] = False
    return mask


# What an output is compared with


@pytest.mark.parametrize("kind", ["plain", "mask", "weights", "both", "for all"])
def test_the_target_is_that_of_the_last_step_that_counts(kind):
    mask = some_mask() if kind in ("mask", "both", "for all") else None
    labels, goals = np.arange(T * B).reshape(T, B), drawn(T, B, O)
    weights = np.round(np.random.default_rng(3).random((T, B)), 1)
    weights[-2:, 1] = 0
    if kind == "for all":  # weights and targets without the axis of examples
        weights, labels, goals = weights[:, 0], labels[:, 0], goals[:, 0]
        weights[-1] = 0
    targets = dict(label=labels, goal=goals, flag=labels % 2 == 0)
    weighted = kind in ("weights", "both", "for all")
    side = Side(mask=mask, targets=Weighted(targets, weights) if weighted else targets)
    found = wholes.one_step(jax.tree.map(jnp.asarray, side))
    real = np.ones((T, B), bool) if mask is None else mask
    if mask is not None:
        np.testing.assert_array_equal(found.mask, real.any(0)[None])
    got = found.targets
    for b in range(B):
        own = (lambda a: a) if kind == "for all" else (lambda a, b=b: a[:, b])
        counts = real[:, b] & (own(weights) != 0) if weighted else real[:, b]
        pairs = [(got.targets if weighted else got, targets)]
        pairs += [(got.weights, weights)] if weighted else []
        for one, all_of in pairs:
            for a, steps in zip(*map(jax.tree.leaves, (one, all_of)), strict=True):
                steps = own(steps)[counts]
                want = steps[-1] if counts.any() else 0 * steps.sum(0)
                np.testing.assert_array_equal(a[0, b], want)


def batch_of(weighted: bool):
    mask, xs = some_mask(), drawn(T, B, I)
    goals = np.broadcast_to(drawn(B, O, seed=1), (T, B, O))
    if weighted:
        weights = np.array(objectives.at_last_step(mask)) * np.array(
            [2, 1, 3, 1], np.float32
        )
        goals = Weighted(goals, weights)
    side = Side(mask=mask, targets=goals)
    return jax.tree.map(jnp.asarray, Batch(xs, side))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_a_mean_over_sequences(weighted):
    batch = batch_of(weighted)
    params = POOL.init(KEY)
    off = lambda ys, goals: {"off": abs(ys - goals).sum(-1)}
    grad = estimators.exact(POOL, ERROR, aux=off).grad
    found = quick_jit(grad)(params, (), batch, KEY)
    goals = batch.side.targets.targets if weighted else batch.side.targets
    losses, offs, weights = [], [], [2.0, 1, 3] if weighted else [1.0] * 3
    for b in range(3):  # the fourth has no step
        xs = batch.inputs[batch.side.mask[:, b], b]
        hs = unrolls.scan(cells.elman(I, 4), params[0], jnp.zeros(4, jnp.float32), xs)[
            1
        ]
        y = hs[-1] @ params[2]["kernel"] + params[2]["bias"]
        losses.append(((y - goals[-1, b]) ** 2).sum())
        offs.append(abs(y - goals[-1, b]).sum())
    assert float(found.steps) == sum(weights)
    np.testing.assert_allclose(
        found.loss, np.average(losses, weights=weights), rtol=1e-6
    )
    np.testing.assert_allclose(
        found.metrics["off"], np.average(offs, weights=weights), rtol=1e-6
    )


def test_a_batch_without_a_real_step_has_no_loss():
    batch = batch_of(False)
    batch = batch._replace(side=batch.side._replace(mask=jnp.zeros((T, B), bool)))
    found = quick_jit(estimators.exact(POOL, ERROR).grad)(
        POOL.init(KEY), (), batch, KEY
    )
    assert float(found.loss) == 0
    assert float(found.steps) == 0
    assert not any(a.any() for a in jax.tree.leaves(found.grads))


def test_a_batch_that_is_cut_has_the_same_gradient():
    batch = batch_of(True)
    batch = jax.tree.map(
        lambda a: jnp.pad(a, [(0, 3)] + [(0, 0)] * (a.ndim - 1)), batch
    )
    exact, params = estimators.exact(POOL, ERROR), POOL.init(KEY)
    each = [exact, estimators.bucketed(exact, (5, 8))]
    a, b = (quick_jit(e.grad)(params, (), batch, KEY) for e in each)
    assert float(a.steps) == float(b.steps)
    for x, y in zip(jax.tree.leaves(a.grads), jax.tree.leaves(b.grads), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


ENDS = {  # of the last, what follows the pool is left out
    name: () if name in ("bidirectional", "ends", "last") else pytest.mark.slow
    for name in WHOLES
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=m) for n, m in ENDS.items()])
def test_a_loss_inside_is_that_of_the_outputs(name):
    """Also of a model that ends with a function of the whole sequence."""
    model = WHOLES[name].make()
    model = models.sections(*model.parts[: 2 if name == "last" else None])
    with jax.numpy_dtype_promotion("standard"):
        params = initial(model, (0, 1))
    params = jax.tree.map(lambda a: a.astype(np.float32), params)
    xs, carry = drawn(T, B, I), model.init_carry(params, (B,))
    ys = quick_jit(lambda *at: unrolls.scan(model, *at)[1])(params, carry, xs)
    goals = drawn(T, B, ys.shape[-1], seed=1)
    batch = jax.tree.map(jnp.asarray, Batch(xs, Side(targets=goals)))
    found = quick_jit(estimators.exact(model, ERROR).grad)(params, (), batch, KEY)
    goals = goals[-1:] if name in POOLED else goals
    assert int(found.steps) == len(ys) * B
    np.testing.assert_allclose(
        found.loss, ((ys - goals) ** 2).sum(-1).mean(), rtol=1e-5
    )


# What is drawn


def recorded(kept: list, index: int):
    """A layer, or a function of a sequence, that writes down what its keys draw."""

    def draws(side):
        one = lambda key: jax.random.bits(key, (2,))
        kept.append((index, np.asarray(jax.vmap(one)(side.keys))))

    def fwd(params, carry, xs, side):
        draws(side)
        return carry, xs, ()

    def apply(params, ys, side):
        draws(side)
        return ys, side

    layer = layers.dropout(0.5)._replace(fwd=fwd)
    return layer, Whole(lambda key: (), apply)


def test_no_two_parts_draw_the_same():
    kept: list = []
    layer = [recorded(kept, i)[0] for i in range(8)]
    whole = recorded(kept, 8)[1]
    run = lambda layer, p, c, xs, side: layer.fwd(p, c, xs, side)[:2]
    model = models.sections(
        layers.stack(layer[0], layer[1]),
        wholes.bidirectional(layer[2], layers.stack(layer[3], layer[4]), unroll=run),
        whole,
        layer[5],
        wholes.last(),
        layers.stack(layer[6], layer[7]),
    )
    keys = jax.random.split(KEY, T)
    at = model.init(KEY), model.init_carry(model.init(KEY), (B,)), ones(T, B, I)
    unrolls.through(run, model, *at, Side(keys=keys))
    assert {i for i, _ in kept} == set(range(9))
    of_first = [tuple(bits[0]) for i, bits in kept if i != 3 and i != 4]
    of_first += [tuple(bits[-1]) for i, bits in kept if i in (3, 4)]  # from the end
    assert len(set(of_first)) == 9


def test_the_two_directions_drop_different_features():
    xs, side = ones(T, B, 8), Side(keys=jax.random.split(KEY, T))
    drop = layers.dropout(0.5)
    for ys in (
        wholes.bidirectional(drop).apply(((), ()), xs, side)[0],
        models.bidirectional(drop, drop)(((), ()), ((), ()), xs, side)[1],
    ):
        assert (ys[..., :8] != ys[..., 8:]).mean() > 0.3


# Who takes them


def test_options_reach_the_recurrent_parts():
    model = models.sections(
        cells.gru(I, 4),
        wholes.bidirectional(cells.lstm(4, 3)),
        wholes.ends(cells.gru(6, 2)),
    )
    found = layers.parts(model)
    assert [jax.tree_util.keystr(p.path) for p in found] == [
        "[0]", "[1][0]", "[1][1]", "[2][0]", "[2][1]"
    ]  # fmt: skip
    kept = layers.with_options(model, save=layers.GATES)
    assert all(p.recurrent.save is layers.GATES for p in layers.parts(kept))
    assert layers.with_options(model, save=layers.GATES) == kept


@pytest.mark.parametrize("name", [n for n in WHOLES if n != "a function of one's own"])
def test_a_recipe_makes_an_equal_model(name):
    model = WHOLES[name].make()
    assert recipes.read(recipes.write(model)) == model
    assert repr(model).startswith("models.sections(")


def test_a_function_of_ones_own_is_not_written_down():
    with pytest.raises(ValueError, match="models.sections: .* is one's own"):
        recipes.write(models.sections(cells.gru(I, 3), OWN))


# Who refuses them


@functools.cache
def state():
    return POOL.init(KEY), ((), (), ())


REFUSED = {
    "stream": (lambda: estimators.stream(POOL, ERROR), "stream: it hands the state on"),
    "truncated": (
        lambda: unrolls.truncated(POOL, *state(), ones(T, B, I), window=2),
        "truncated: its gradient ends where a window begins",
    ),
    "exact, truncated": (
        lambda: estimators.exact(
            POOL, ERROR, unroll=functools.partial(unrolls.truncated, window=2)
        ).grad(POOL.init(KEY), (), batch_of(False), KEY),
        "truncated: its gradient ends",
    ),
    "randomly_truncated": (
        lambda: unrolls.randomly_truncated(
            POOL, *state(), ones(T, B, I), mean_length=3, key=KEY
        ),
        "randomly_truncated: it cuts time",
    ),
    "step": (
        lambda: unrolls.step(POOL, *state(), ones(B, I)), "step: it runs one step"
    ),
    "burn_in": (
        lambda: sequences.burn_in(POOL, *state(), ones(T, B, I), steps=1),
        "burn_in: it hands a state on",
    ),
    "generate": (
        lambda: models.generate(POOL, state()[0], jnp.ones(3, int), 2, 1.0, KEY),
        "generate: it draws one symbol",
    ),
    "pullback": (
        lambda: unrolls.pullback(POOL, *state(), ones(T, B, I), watch=unrolls.contract),
        "pullback: .* needs the whole sequence",
    ),
    "stack": (lambda: layers.stack(POOL, cells.gru(2, 3)), r"layers\[0\]: .*got sections"),
    "a stack of a Whole": (
        lambda: layers.stack(wholes.mean()), r"layers\[0\]: .*stands between layers"
    ),
    "adaptive truncation": (
        lambda: diagnose.adaptive_truncation(POOL, ERROR), "model: .*whole sequence"
    ),
    "sections of sections": (lambda: models.sections(POOL), r"parts\[0\]: .*got sections"),
    "sections of a number": (lambda: models.sections(3), r"parts\[0\]: .*got a int"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_who_cannot_run_them_says_why(name):
    call, message = REFUSED[name]
    with pytest.raises(TypeError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# What is wrong is named


def test_memory_is_of_layers():
    at = POOL.init(KEY), POOL.init_carry(POOL.init(KEY), (B,)), ones(T, B, I)
    with pytest.raises(ValueError, match="memory: expected None with models.sections"):
        unrolls.checkpointed(POOL, *at, memory=100_000)


def own(apply):
    return models.sections(Whole(lambda key: (), apply))


WRONG = {
    "no pair": (lambda p, ys, side: ys, TypeError, r"parts\[0\]: .*return \(ys, side\)"),
    "longer": (
        lambda p, ys, side: (jnp.concatenate([ys, ys]), side), ValueError,
        r"parts\[0\]: .*from 1 to 5, got leaves \[\[10, 4, 3\]\]",
    ),
    "the side as it was": (
        lambda p, ys, side: (ys[:1], side), ValueError,
        r"parts\[0\]: expected side\.mask of the 1 steps .*got \[5, 4\]; wholes\.one_step",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_function_of_ones_own_that_is_wrong_is_named(name):
    apply, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        unrolls.bptt(
            own(apply),
            ((),),
            ((),),
            ones(T, B, I),
            Side(mask=jnp.ones((T, B), bool)),
        )


@pytest.mark.parametrize(
    "make", [wholes.last, wholes.mean, lambda: wholes.attention_pool(I)]
)
def test_a_pool_of_several_sequences_in_a_row_is_refused(make):
    model, xs = models.sections(make()), ones(T, B, I)
    params, side = model.init(KEY), Side(resets=jnp.zeros((T, B), bool))
    with pytest.raises(ValueError, match=r"side\.resets: expected None"):
        unrolls.bptt(model, params, ((),), xs, side)


def test_parameters_of_another_model_are_named():
    params = POOL.init(KEY)
    wrong = (*params[:2], dict(params[2], bias=jnp.zeros(7, jnp.float32)))
    carry = POOL.init_carry(params, (B,))
    with pytest.raises(
        ValueError, match=r"params\[2\]\['bias'\]: expected \[2\], got \[7\]"
    ):
        unrolls.bptt(POOL, wrong, carry, ones(T, B, I))
    with pytest.raises(ValueError, match="carry: expected the structure"):
        unrolls.bptt(POOL, params, (), ones(T, B, I))


def test_sizes_that_do_not_fit():
    with pytest.raises(
        ValueError, match="n_heads: expected a divisor of the 4 features"
    ):
        wholes.attention(4, 3)
    for make, name in (
        (wholes.attention, "attention"),
        (wholes.attention_pool, "attention_p"),
    ):
        whole = make(4)
        with pytest.raises(ValueError, match=rf"{name}.*: expected \[\.\.\., 4\], got"):
            whole.apply(whole.init(KEY), ones(T, B, I), Side())
    with pytest.raises(ValueError, match="sections: expected at least one part"):
        models.sections()


# Beside other libraries


def test_attention_is_that_of_flax():
    from flax import linen as nn

    xs, mask = drawn(T, B, 4), some_mask()
    block = wholes.attention(4, 2)
    params = jax.tree.map(lambda a: a + 0.1 * drawn(*a.shape, seed=2), block.init(KEY))
    found = block.apply(params, jnp.asarray(xs), Side(mask=jnp.asarray(mask)))[0]
    theirs = nn.MultiHeadDotProductAttention(num_heads=2)
    at = xs.swapaxes(0, 1)
    seen = np.broadcast_to(mask.T[:, None, None, :], (B, 1, T, T))
    want = theirs.apply({"params": params}, at, at, mask=jnp.asarray(seen))
    want = xs + np.asarray(want).swapaxes(0, 1)
    np.testing.assert_allclose(found[mask], want[mask], rtol=1e-5, atol=1e-6)
    assert not np.asarray(found)[~mask].any()


def test_sequences_in_one_row_do_not_see_each_other():
    model = models.sections(
        wholes.bidirectional(cells.gru(I, 2)), wholes.attention(4, 2)
    )
    params, xs = model.init(KEY), jnp.asarray(drawn(T, I))
    resets = jnp.array([True, False, True, False, False])
    run = quick_jit(
        lambda xs, **side: unrolls.scan(model, params, ((), ()), xs, Side(**side))[1]
    )
    apart = jnp.concatenate([run(xs[:2]), run(xs[2:])])
    np.testing.assert_allclose(run(xs, resets=resets), apart, rtol=1e-5, atol=1e-6)
