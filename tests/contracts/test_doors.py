"""What is given at each door: cells, layers, lists of them, and what is neither."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
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
    sequences,
    train,
    unrolls,
)
from bptt_jax.types import Estimator, Gradient
from support.gradients import quick_jit

T, B, I, H = 6, 2, 3, 3
LOSS = objectives.squared_error
CELL = cells.lstm(I, H)
LAYER = layers.recurrent(CELL)
KEY = jax.random.key(0)
BATCH = Batch(np.ones((T, B, I)), Side(targets=np.zeros((T, B, H))))


@functools.cache
def params_of():
    with jax.numpy_dtype_promotion("standard"):
        made = CELL.init(KEY)
    return jax.tree.map(lambda a: np.asarray(a, np.float64), made)


def carry_of(batch=(B,)):
    return CELL.init_carry(params_of(), batch)


# A cell wherever there may be a layer

PAIRS = {
    "stack": lambda part: layers.stack(part, layers.dense(H, 2)),
    "stack of a list": lambda part: layers.stack([part, layers.dense(H, 2)]),
    "with_loss": lambda part: layers.with_loss(part, LOSS),
    "residual": layers.residual,
    "remat": layers.remat,
    "features": lambda part: models.features(part, 2, H),
    "features of a list": lambda part: models.features([part], 2, H),
    "features of a tuple": lambda part: models.features((part,), 2, H),
    "symbols": lambda part: models.symbols(5, I, part, 2, H),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_cell_is_taken_as_the_layer_that_runs_it(name):
    made = [PAIRS[name](part) for part in (CELL, LAYER)]
    keys = [str(jax.make_jaxpr(layer.init)(KEY)) for layer in made]
    assert keys[0] == keys[1]
    assert all(layer.over for layer in made)
    params = jax.eval_shape(made[0].init, KEY)
    carry = jax.eval_shape(lambda p: made[0].init_carry(p, (B,)), params)
    xs = jnp.ones((T, B), int) if name == "symbols" else jnp.ones((T, B, I), "f")
    side = Side(targets=jnp.zeros((T, B, H), "f")) if name == "with_loss" else Side()
    with jax.numpy_dtype_promotion("standard"):
        programs = [
            str(jax.make_jaxpr(lambda *a, m=m: m.fwd(*a, side)[:2])(params, carry, xs))
            for m in made
        ]
    assert programs[0] == programs[1]


@pytest.mark.parametrize("make", [estimators.exact, estimators.stream])
def test_estimators_take_a_cell(make):
    losses = []
    for model in (CELL, LAYER):
        estimator = make(model, LOSS)
        state = estimator.init(params_of(), BATCH)
        loss, grads, *_ = quick_jit(estimator.grad)(params_of(), state, BATCH, KEY)
        losses.append((loss, grads["w_h"]))
    for a, b in zip(*losses, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "look",
    [
        lambda m: diagnose.gradient_flow(m, LOSS, params_of(), BATCH).loss,
        lambda m: diagnose.by_lag(m, LOSS, params_of(), BATCH, lags=2).norms,
        lambda m: diagnose.omega(m, LOSS, params_of(), BATCH).value,
        lambda m: diagnose.activity(m, params_of(), BATCH)[0].means.h,
    ],
)
def test_diagnoses_take_a_cell(look):
    np.testing.assert_array_equal(look(CELL), look(LAYER))


# What is neither is named

BOTH = models.bidirectional(CELL, CELL)
REFUSED = {
    "stack, both directions": (
        lambda: layers.stack(LAYER, BOTH), r"layers\[1\]: .*whole sequence"
    ),
    "stack, a factory": (
        lambda: layers.stack(LAYER, cells.lstm), r"layers\[1\]: .*function lstm.*call it"
    ),
    "stack, a number": (lambda: layers.stack(3), r"layers\[0\]: expected a Cell or a L"),
    "with_loss": (lambda: layers.with_loss("lstm", LOSS), "layer: .*got a str"),
    "objective": (lambda: layers.with_loss(CELL, 3), r"objective: expected a function"),
    "objective of an estimator": (
        lambda: estimators.exact(CELL, "squared"), r"objective: expected a function"
    ),
    "residual": (lambda: layers.residual(BOTH), "layer: expected a Cell or a Layer"),
    "remat": (lambda: layers.remat(None), "layer: expected a Cell or a Layer"),
    "features": (lambda: models.features((CELL, 3), 1, H), r"cells\[1\]: .*got a int"),
    "features, none": (lambda: models.features(None, 1, H), "cells: expected cells"),
    "bidirectional": (lambda: models.bidirectional(CELL, 3), "backward: .*got a int"),
    "generate": (
        lambda: models.generate(3, (), jnp.zeros(2, int), 2, 1.0, KEY), "model: .*got a int"
    ),
    "exact": (lambda: estimators.exact(BOTH, LOSS), "model: .*whole sequence"),
    "stream": (lambda: estimators.stream(3, LOSS), "model: .*got a int"),
    "data_parallel": (
        lambda: estimators.data_parallel(CELL, jax.make_mesh((1,), ("data",))),
        "estimator: expected a record Estimator, got Cell",
    ),
    "reverse": (lambda: unrolls.reverse(CELL), "unroll: expected a function, got a Cell"),
    "exact, unroll": (
        lambda: estimators.exact(CELL, LOSS, unroll="bptt"), "unroll: expected a function"
    ),
    "stream, unroll": (
        lambda: estimators.stream(CELL, LOSS, unroll="scan"), "unroll: .*got a str"
    ),
    "bidirectional, unroll": (
        lambda: models.bidirectional(CELL, CELL, "bptt"), "unroll: .*got a str"
    ),
    "burn_in": (
        lambda: sequences.burn_in(
            CELL, params_of(), carry_of(), BATCH.inputs, steps=1, unroll="bptt"
        ),
        "unroll: .*got a str",
    ),
    "activation": (
        lambda: cells.elman(I, H, activation="tanh"), "activation: .*got a str"
    ),
    "mesh": (
        lambda: estimators.data_parallel(estimators.exact(CELL, LOSS), "data"),
        "mesh: expected a jax.sharding.Mesh of one axis, got str",
    ),
    "adaptive_truncation": (
        lambda: diagnose.adaptive_truncation(BOTH, LOSS), "model: .*whole sequence"
    ),
    "regularised": (
        lambda: diagnose.regularised(3, LOSS, alpha=1.0), "model: .*got a int"
    ),
    "gradient_flow": (
        lambda: diagnose.gradient_flow(BOTH, LOSS, params_of(), BATCH), "model: "
    ),
    "activity": (lambda: diagnose.activity(BOTH, params_of(), BATCH), "model: "),
    "jacobians": (
        lambda: diagnose.jacobians(LAYER, params_of(), carry_of(()), BATCH.inputs[:, 0]),
        "cell: expected a record Cell, got Layer",
    ),
    "lyapunov": (
        lambda: diagnose.lyapunov(LAYER, params_of(), carry_of(()), BATCH.inputs[:, 0]),
        "cell: expected a record Cell, got Layer",
    ),
    "recurrent": (lambda: layers.recurrent(LAYER), "cell: expected a record Cell"),
    "zoneout": (lambda: cells.zoneout(LAYER, 0.1), "cell: expected a record Cell"),
    "masked": (lambda: cells.masked(cells.lstm), "cell: .*got lstm"),
    "resets": (lambda: cells.resets(LAYER), "cell: expected a record Cell"),
    "learned_carry": (lambda: cells.learned_carry(3), "cell: .*got int"),
    "in_dtype": (lambda: cells.in_dtype(LAYER, None), "cell: expected a record Cell"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_neither_is_named(name):
    call, message = REFUSED[name]
    with pytest.raises(TypeError, match=message):
        call()


def test_nothing_to_stack():
    for none in ((), ([],)):
        with pytest.raises(ValueError, match="at least one layer"):
            layers.stack(*none)


def test_an_objective_without_targets():
    layer = layers.with_loss(CELL, LOSS)
    with pytest.raises(ValueError, match=r"side\.targets: .*got None"):
        unrolls.bptt(layer, params_of(), carry_of(), BATCH.inputs)
    free = layers.with_loss(CELL, lambda ys, targets: (ys**2).sum(-1))
    _, losses = unrolls.bptt(free, params_of(), carry_of(), BATCH.inputs)
    assert losses.shape == (T,)


def test_an_estimator_that_gives_no_gradient():
    exact = estimators.exact(CELL, LOSS)
    zeros = Gradient(np.zeros(()), params_of(), (), np.ones(()), {})
    mesh = jax.make_mesh((1,), ("data",))
    for cut, got in (
        (tuple, "a tuple of 5"),
        (lambda found: jnp.asarray(found.loss), "(Tracer|Array)"),
    ):
        own = Estimator(exact.init, lambda *at, cut=cut: cut(zeros))
        refused = pytest.raises(TypeError, match=rf"estimator: .*Gradient\(.*{got}")
        with refused:
            estimators.data_parallel(own, mesh).grad(params_of(), (), BATCH, KEY)
        with refused:
            diagnose.bias(own, exact, params_of(), BATCH, KEY)
        with refused:
            make = lambda model, objective, own=own, **at: own
            adaptive = diagnose.adaptive_truncation(CELL, LOSS, make=make)
            adaptive.grad(params_of(), adaptive.init(params_of(), BATCH), BATCH, KEY)
        with refused:
            state = train.TrainState(
                params_of(), (), (), jnp.int32(0), KEY, jnp.int32(0)
            )
            batch = lambda item, key: BATCH
            train.step(own, optax.sgd(0.1), batch, state, ())


# A carry of another kind; a step that raises; shapes as they were given

UNROLLS = {
    "bptt": functools.partial(unrolls.bptt, chunk=4),
    "checkpointed": functools.partial(unrolls.checkpointed, chunk=4),
    "truncated": functools.partial(unrolls.truncated, window=4),
    "both_modes": functools.partial(unrolls.both_modes, chunk=4),
    "scan": unrolls.scan,
    "scan of a layer": lambda cell, *at: unrolls.scan(layers.recurrent(cell), *at),
}
CARRIES = {
    "a tuple": lambda c: (c.h, c.c),
    "a list": lambda c: [c.h, c.c],
    "a dict": lambda c: dict(h=c.h, c=c.c),
    "None": lambda c: None,
    "h alone": lambda c: c.h,
}


@pytest.mark.parametrize("kind", CARRIES)
@pytest.mark.parametrize("name", UNROLLS)
def test_a_carry_of_another_structure(name, kind):
    with pytest.raises(ValueError, match=r"carry: expected the structure .*LSTMCarry"):
        UNROLLS[name](CELL, params_of(), CARRIES[kind](carry_of()), BATCH.inputs)


def own(step):
    return cells.from_step(
        step, lambda key: (), lambda p, batch: jnp.zeros((*batch, H), jnp.float64)
    )


def _raises(p, h, x):
    raise ValueError("the tank is empty")


BAD_STEPS = {
    "raises": (_raises, "the step raised ValueError: the tank is empty"),
    "no pair": (lambda p, h, x: h, r"cell: expected a step to return a pair"),
    "does not fit": (
        lambda p, h, x: (h @ jnp.ones((5, H)), h), r"the step raised TypeError: dot_general"
    ),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD_STEPS)
@pytest.mark.parametrize("name", UNROLLS)
def test_a_step_that_is_wrong_is_not_the_fault_of_the_carry(name, bad):
    step, message = BAD_STEPS[bad]
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        UNROLLS[name](own(step), (), jnp.zeros((B, H)), BATCH.inputs)
    assert "carry:" not in str(caught.value)


@pytest.mark.parametrize("name", UNROLLS)
def test_shapes_are_told_as_they_were_given(name):
    for xs in (np.ones(20), np.ones((20, B, 5))):
        batch = xs.shape[1:-1]
        shape = str(list(xs.shape)).replace("[", r"\[").replace("]", r"\]")
        with pytest.raises(ValueError, match=rf"xs: expected .*got {shape}"):
            UNROLLS[name](CELL, params_of(), carry_of(batch), xs)


def test_shapes_of_layers_are_told_as_they_were_given():
    layer = layers.stack(layers.dense(4, 2))
    params = (dict(kernel=np.ones((4, 2)), bias=np.ones(2)),)
    with pytest.raises(ValueError, match=r"dense: .*got \[20, 2, 5\]"):
        unrolls.bptt(layer, params, ((),), np.ones((20, B, 5)), chunk=4)


# Batches of no examples

EMPTY = {
    "no examples": (CELL, np.ones((T, 0, I))),
    "an empty first leaf": (
        own(lambda p, h, x: (h + x["b"], h)),
        dict(a=np.ones((T, B, 0)), b=np.ones((T, B, H))),
    ),
}


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("name", UNROLLS)
def test_leaves_without_an_entry(name, kind):
    cell, xs = EMPTY[kind]
    params = params_of() if cell is CELL else ()
    carry = cell.init_carry(params, (0 if cell is CELL else B,))

    def loss(xs):
        last, ys = UNROLLS[name](cell, params, carry, xs)
        return sum(a.sum() for a in jax.tree.leaves((last, ys)))

    value, grads = quick_jit(jax.value_and_grad(loss))(xs)
    assert np.isfinite(value)
    assert jax.tree.map(np.shape, grads) == jax.tree.map(np.shape, xs)


# Derivatives of a gradient


def test_a_gradient_that_has_none_in_reverse_says_what_to_take():
    def squared(h, unroll):
        def loss(h):
            return (unroll(CELL, params_of(), h, BATCH.inputs)[1] ** 2).sum()

        return sum((a**2).sum() for a in jax.tree.leaves(jax.grad(loss)(h)))

    few = functools.partial(unrolls.checkpointed, chunk=2, slots=2)
    for wrap in (lambda f: f, jax.jit, lambda f: jax.jit(jax.checkpoint(f))):
        with pytest.raises(ValueError, match=r"jax\.jvp of jax\.grad.*both_modes"):
            jax.eval_shape(jax.grad(wrap(lambda h: squared(h, few))), carry_of())
    with pytest.raises(ValueError, match="both_modes"):
        over = jax.vmap(jax.grad(lambda h: squared(h, few)))
        jax.eval_shape(over, carry_of((1, B)))
    found = quick_jit(
        lambda h: [
            jax.jvp(lambda h, u=u: squared(h, u), (h,), (h,))
            for u in (few, unrolls.scan)
        ]
    )(carry_of())
    np.testing.assert_allclose(*found, rtol=1e-10)


# A mean over mapped examples inside a step


@pytest.mark.parametrize("name", UNROLLS)
def test_a_mean_over_mapped_examples_inside_a_step(name):
    """Each example is pulled to the mean of all: mapped by name, or by an axis."""

    def pulled(mean, h, x):
        h = jnp.tanh(h + x + mean(h))
        return h, h

    named = own(lambda p, h, x: pulled(lambda h: jax.lax.pmean(h, "all"), h, x))
    axis = own(lambda p, h, x: pulled(lambda h: h.mean(0, keepdims=True), h, x))
    xs = np.random.default_rng(0).normal(size=(T, B, I))
    h, d = np.zeros((B, H)), np.random.default_rng(1).normal(size=(T, B, H))

    def loss(cell, h, xs, d):
        return (d * UNROLLS[name](cell, (), h, xs)[1]).sum()

    def of_one(h, x, d):
        return loss(named, h, x, d)

    want = jax.jit(jax.grad(lambda h, xs: loss(axis, h, xs, d), (0, 1)))(h, xs)
    inside = jax.vmap(jax.grad(of_one, (0, 1)), (0, 1, 1), (0, 1), axis_name="all")
    if name == "both_modes":  # its linear map is traced after the axis is gone
        with pytest.raises(NameError, match="unbound axis name"):
            jax.jit(inside)(h, xs, d)
        return
    for a, b in zip(jax.jit(inside)(h, xs, d), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    each = jax.vmap(of_one, (0, 1, 1), axis_name="all")
    outside = jax.grad(lambda h, xs: each(h, xs, d).sum(), (0, 1))
    if not name.startswith("scan"):  # JAX runs a custom_vjp's backward without the axis
        with pytest.raises(NameError, match="unbound axis name"):
            outside(h, xs)
        return
    for a, b in zip(outside(h, xs), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
