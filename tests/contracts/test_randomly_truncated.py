"""`unrolls.randomly_truncated` is exact in the mean: over all cuts, and over keys."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, layers, unrolls
from bptt_jax.unrolls._randomly_truncated import gains
from support.gradients import Case, arguments_of, initial, quick_jit
from support.members import CELLS

T, L, ALPHA = 7, 3.0, 4.0


@functools.cache
def setting(name="lstm"):
    cell = CELLS[name].make()
    at = arguments_of(CELLS[name], cell, Case(T, (2,), "both", ()))
    return cell, at


def gradient(layer, at, aux):
    def loss(params, carry, xs):
        side = at.side._replace(aux=aux)
        carry, ys = unrolls.bptt(layer, params, carry, xs, side, chunk=3)
        return sum(jnp.sin(a).sum() for a in jax.tree.leaves((carry, ys)))

    return jax.grad(loss, (0, 1, 2))(*at[:3])


@functools.cache
def of_each(name):
    """`gains [patterns, T] -> gradients` and the exact one, one program each."""
    cell, at = setting(name)
    layer = layers.recurrent(cell, on_d_carry=unrolls.times)
    exact = quick_jit(lambda: gradient(cell, at, None))()
    return quick_jit(jax.vmap(lambda g: gradient(layer, at, g))), exact


def probability(cuts) -> float:
    """Of a pattern, by the authors' c_t, written again."""
    p, since = 1.0, 1
    for cut in cuts:
        c = (ALPHA - 1) / ((ALPHA - 2) * L + since)
        p *= c if cut else 1 - c
        since = 1 if cut else since + 1
    return p


def test_the_mean_over_all_patterns_is_the_exact_gradient():
    gradients, exact = of_each("lstm")
    patterns = np.array(list(itertools.product([0, 1], repeat=T - 1)))
    weights = np.array([probability(p) for p in patterns])
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    drawn = quick_jit(jax.vmap(lambda u: gains(u, L, ALPHA)))(1.0 - patterns)
    np.testing.assert_array_equal(np.asarray(drawn[:, :-1]) == 0, patterns == 1)
    each = gradients(np.asarray(drawn))
    for many, want in zip(jax.tree.leaves(each), jax.tree.leaves(exact), strict=True):
        mean = np.tensordot(weights, np.asarray(many), 1)
        np.testing.assert_allclose(mean, want, rtol=1e-11, atol=1e-12)
        assert (
            np.abs(np.asarray(many) - want).max() > 1e-3
        )  # a single pattern is another gradient


def test_gains_without_the_compensation_are_biased():
    """The control: cutting alone is truncation, which is not exact in the mean."""
    gradients, exact = of_each("lstm")
    patterns = np.array(list(itertools.product([0, 1], repeat=T - 1)))
    weights = np.array([probability(p) for p in patterns])
    kept = np.concatenate([1.0 - patterns, np.ones((len(patterns), 1))], 1)
    each = gradients(kept)
    mean = np.tensordot(weights, np.asarray(each[0]["w_h"]), 1)
    assert np.abs(mean - exact[0]["w_h"]).max() > 1e-3


def drawn(layer, at, key, **options):
    def loss(params):
        _, ys = unrolls.randomly_truncated(
            layer, params, *at[1:4], mean_length=L, key=key, **options
        )
        return (ys**2).sum()

    return jax.grad(loss)(at.params)


def exact(layer, at):
    """Of the same loss."""
    loss = lambda params: (unrolls.bptt(layer, params, *at[1:4])[1] ** 2).sum()
    return jax.grad(loss)(at.params)


def test_the_mean_over_keys_nears_the_exact_gradient():
    cell, at = setting("elman")
    keys = jax.random.split(jax.random.key(0), 4000)
    each = quick_jit(jax.vmap(lambda k: drawn(cell, at, k)["w_h"]))(keys)
    each, want = (
        np.asarray(each),
        np.asarray(quick_jit(lambda: exact(cell, at)["w_h"])()),
    )
    error = each.std(0) / np.sqrt(len(keys))
    assert np.all(np.abs(each.mean(0) - want) <= 5 * error)
    assert np.all(error < 0.1 * np.abs(want).max())


def test_segments_have_the_mean_length():
    g = unrolls.truncation_gains(jax.random.key(0), 200_001, mean_length=10, alpha=6.0)
    assert float((g[:-1] == 0).mean()) == pytest.approx(1 / 10, rel=0.03)
    assert g[-1] == 1


def test_any_model_and_keys_of_the_side():
    """A stack: what the key of the first step gives is what a key gives."""
    cell, at = setting("gru")
    net = layers.stack(layers.remat(cell), layers.dense(4, 2))
    params = at.params, initial(layers.dense(4, 2), (0, 0))
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    at = at._replace(params=params, carry=(at.carry, ()))
    keys = jax.random.split(jax.random.key(3), T)
    with_keys = at._replace(side=at.side._replace(keys=keys))
    of_layers = keys[0]  # what dropout draws from
    by_key = quick_jit(lambda key: drawn(net, with_keys, key))
    by_side = quick_jit(lambda: (drawn(net, with_keys, None), exact(net, at)))
    (found, right), (again, _) = by_side(), by_side()
    others = again, by_key(jax.random.key(9)), by_key(of_layers), right
    same, apart, alike, biased = (
        max(float(abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (found, o)),
                                                    strict=True))
        for o in others
    )  # fmt: skip
    assert same == 0
    assert min(apart, alike, biased) > 1e-3


def test_with_h_detach_each_hook_reads_its_own_half():
    """Where it detaches everywhere nothing but c is left to be multiplied by the gains."""
    cell, at = setting("lstm")
    flags = jnp.asarray(np.random.default_rng(0).random((T, 2)) < 0.5)
    at = at._replace(side=at.side._replace(aux=flags))
    detached = layers.with_options(cell, on_d_carry=layers.h_detach)
    key = jax.random.key(3)
    g = unrolls.truncation_gains(key, T, mean_length=L)

    def by_hand(d_carry, aux):
        detach, gain = aux
        d_carry = d_carry._replace(h=jnp.where(detach[..., None], 0, d_carry.h))
        return jax.tree.map(lambda d: gain * d, d_carry)

    both = layers.recurrent(cell, on_d_carry=by_hand)
    side = at.side._replace(aux=(flags, g))

    def loss(params):
        return (unrolls.bptt(both, params, *at[1:3], side, chunk=3)[1] ** 2).sum()

    without = at._replace(side=at.side._replace(aux=None))
    found, want, plain = quick_jit(
        lambda: (
            drawn(detached, at, key, chunk=3),
            jax.grad(loss)(at.params),
            drawn(cell, without, key),
        )
    )()
    for a, b in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    assert np.abs(np.asarray(plain["w_h"]) - want["w_h"]).max() > 1e-3


def test_what_does_not_fit_is_named():
    cell, at = setting()
    run = functools.partial(unrolls.randomly_truncated, mean_length=L)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="key: expected a key"):
        run(cell, *at[:3])
    with pytest.raises(ValueError, match="layer: expected one with a recurrent part"):
        run(layers.dense(3, 4), layers.dense(3, 4).init(key), (), at.xs, key=key)
    with pytest.raises(ValueError, match="mean_length: expected more than 1"):
        unrolls.randomly_truncated(cell, *at[:3], mean_length=1, key=key)
    with pytest.raises(ValueError, match="alpha: expected a number above 2"):
        run(cell, *at[:3], key=key, alpha=2.0)
    assert isinstance(cells.lstm(3, 4), type(cell))
