"""The laws of layers, over every member. Through kernels they are in `test_gradients`."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import _pytrees as trees
from bptt_jax import cells, layers, objectives
from bptt_jax.types import PyTree, Side, Weighted
from support.gradients import (
    Case,
    arguments_of,
    cotangents_like,
    error,
    floating,
    quick_jit,
)
from support.members import LAYERS
from support.step_by_step import step_by_step  # noqa: F401

every_layer = pytest.mark.parametrize("member", LAYERS.values(), ids=list(LAYERS))
CASE = Case(5, (2,), "both", ())


def cut(tree, start, stop):
    return jax.tree.map(lambda a: a[start:stop], tree)


def like(tree, seed):
    """Random cotangents: None where a leaf is not floating."""
    return trees.fill(tree, [jnp.asarray(d) for d in cotangents_like(tree, seed)])


def in_parts(layer, params, carry, xs, side, d_carry, d_ys, parts):
    """As `fwd` and `bwd` of all steps, of some steps and then of others."""
    kept = []
    for part in parts:
        at = cut(xs, *part), cut(side, *part)
        after, ys, residuals = layer.fwd(params, carry, *at)
        kept.append((carry, *at, ys, residuals, cut(d_ys, *part)))
        carry = after
    d_params, along = [], []
    for first, x, s, ys, residuals, d in reversed(kept):
        d_p, d_carry, *d_at = layer.bwd(params, first, x, s, ys, residuals, d_carry, d)
        d_params.append(d_p)
        along.insert(0, d_at)
    ys = jnp.concatenate([k[3] for k in kept])
    return carry, ys, (trees.add(*d_params), d_carry, *trees.join(along))


class Sides(NamedTuple):
    """Of the laws of `fwd` and `bwd`: values and gradients three ways."""

    by_hand: PyTree
    by_jax: PyTree
    in_parts: PyTree


@functools.cache
def sides(name) -> Sides:
    """All that the laws compare, as one program."""
    layer = LAYERS[name].make()
    params, carry, xs, side, T = arguments_of(LAYERS[name], layer, CASE)

    @quick_jit
    def run(params, carry, xs):
        def fwd(params, carry, xs, targets):
            return layer.fwd(params, carry, xs, side._replace(targets=targets))[:2]

        out, pull = trees.pullback(fwd, params, carry, xs, side.targets)
        d_out = like(out[0], 1), like(out[1], 2)
        after, ys, residuals = layer.fwd(params, carry, xs, side)
        d = layer.bwd(params, carry, xs, side, ys, residuals, *d_out)
        parts = [(0, 2), (2, T)]
        return Sides(
            (after, ys, d),
            (*out, pull(d_out)),
            in_parts(layer, params, carry, xs, side, *d_out, parts),
        )

    return run(params, carry, xs)


def same(found, want):
    for (name, a), (_, b) in zip(floating(found), floating(want), strict=True):
        assert error(a, b) < 1e-12, name


@pytest.mark.parametrize("name", LAYERS)
def test_bwd_is_the_transpose_of_the_derivative_of_fwd(name):
    same(sides(name).by_hand, sides(name).by_jax)


@pytest.mark.parametrize("name", LAYERS)
def test_some_steps_and_then_others_are_all_steps(name):
    same(sides(name).in_parts, sides(name).by_hand)


@every_layer
def test_factory_is_cached(member):
    assert member.make() is member.make()


def residuals(layer):
    def run(key):
        params = layer.init(key)
        xs = jnp.ones((3, 2, 3), jnp.float32)
        return layer.fwd(params, layer.init_carry(params, (2,)), xs, Side())[2]

    return jax.tree.leaves(jax.eval_shape(run, jax.random.key(0)))


def test_remat_keeps_nothing():
    assert residuals(layers.remat(layers.recurrent(cells.lstm(3, 4)))) == []


def test_settled_is_what_does_not_say_what_it_keeps():
    says = layers.recurrent(cells.lstm(3, 4), save=layers.GATES)
    model = layers.settled(layers.stack(says, cells.gru(4, 4)), layers.STATES)
    kept = [part.recurrent.save for part in layers.parts(model)]
    assert kept == [layers.GATES, layers.STATES]


def test_made_with_other_options_it_still_runs_again():
    layer = layers.with_options(layers.remat(cells.lstm(3, 4)), save=layers.GATES)
    assert residuals(layer) == []


def test_state_that_is_output_is_stored_once():
    (kept,) = residuals(layers.recurrent(cells.lstm(3, 4)))
    assert kept.shape == (3, 2, 4)


def test_losses_are_zero_at_masked_steps_and_weighted():
    layer = layers.with_loss(layers.dense(3, 2), objectives.squared_error)
    params = layer.init(jax.random.key(0))
    xs, goals = jnp.ones((3, 2, 3), jnp.float32), jnp.zeros((3, 2, 2), jnp.float32)
    mask = jnp.array([[True, True], [False, True], [False, False]])
    weights = jnp.array([[2.0, 0.0], [1, 3], [1, 1]], jnp.float32)

    def losses(**side):
        return layer.fwd(params, (), xs, Side(**side))[1]

    one = objectives.squared_error(
        layers.dense(3, 2).fwd(params, (), xs, Side())[1], goals
    )
    chex.assert_trees_all_close(
        losses(targets=goals, mask=mask), jnp.where(mask, one, 0).sum(1)
    )
    weighted = Weighted(goals, weights)
    want = jnp.where(mask, one * weights, 0).sum(1)
    chex.assert_trees_all_close(losses(targets=weighted, mask=mask), want)
    of_steps = Weighted(goals, weights[:, 0])
    want = jnp.where(mask, one * weights[:, :1], 0).sum(1)
    chex.assert_trees_all_close(losses(targets=of_steps, mask=mask), want)
    chex.assert_trees_all_close(losses(targets=of_steps), (one * weights[:, :1]).sum(1))


def test_layers_of_a_stack_draw_from_keys_of_their_own():
    one = layers.dropout(0.5)
    net = layers.stack(one, one)
    xs = jnp.ones((4, 200), jnp.float32)
    side = Side(keys=jax.random.split(jax.random.key(0), 4))
    ys = net.fwd(((), ()), ((), ()), xs, side)[1]
    kept = float((ys != 0).mean())
    assert 0.15 < kept < 0.35  # a half of a half; with one key for both it is a half


@pytest.mark.parametrize(
    "layer", [layers.dropout(0.5), layers.variational_dropout(0.5, 6)]
)
def test_dropout_without_keys_is_the_identity(layer):
    xs = jnp.ones((4, 2, 6), jnp.float32)
    carry = layer.init_carry((), (2,))
    np.testing.assert_array_equal(layer.fwd((), carry, xs, Side())[1], xs)


def test_variational_dropout_has_one_mask_for_all_steps():
    layer = layers.variational_dropout(0.5, 50)
    xs = jnp.ones((4, 50), jnp.float32)
    side = Side(keys=jax.random.split(jax.random.key(0), 4))
    ys = layer.fwd((), layer.init_carry((), ()), xs, side)[1]
    np.testing.assert_array_equal(ys, jnp.broadcast_to(ys[0], ys.shape))
    assert 0 < float((ys == 0).mean()) < 1


def test_errors_name_what_does_not_fit():
    xs = jnp.ones((3, 4), jnp.float32)
    with pytest.raises(ValueError, match=r"residual: .*\(3, 4\).*\(3, 2\)"):
        layer = layers.residual(layers.dense(4, 2))
        layer.fwd(layer.init(jax.random.key(0)), (), xs, Side())
    with pytest.raises(ValueError, match="rate"):
        layers.dropout(1.0)
    with pytest.raises(ValueError, match="n_out"):
        layers.dense(3, 0)
    with pytest.raises(ValueError, match="at least one layer"):
        layers.stack()
    with pytest.raises(TypeError, match="integer symbols"):
        layer = layers.embedding(5, 3)
        layer.fwd(layer.init(jax.random.key(0)), (), xs, Side())
    with pytest.raises(TypeError, match="hashable"):
        layers.dropout(np.ones(2))
