"""Everything under `jax_numpy_rank_promotion="raise"` and strict promotion of dtypes.

In float32, as users train. Programs are traced with their gradients and not run: both
settings act while a program is traced.
"""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from bptt_jax import (
    Batch,
    Side,
    cells,
    diagnose,
    estimators,
    layers,
    models,
    objectives,
    tasks,
    train,
    unrolls,
)
from bptt_jax._jax import enable_x64
from bptt_jax.interop import linen
from bptt_jax.interop import nnx as ours_nnx
from bptt_jax.verify._cases import arguments
from support import tiers
from support.gradients import Case, floating
from support.members import CELLS, COMBINED, LAYERS, Member

T, B, I, H = 5, 2, 3, 4
LOSS = objectives.squared_error
KEY = jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def strict():
    with (
        enable_x64(False),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        yield


def in_float32(tree):
    wide = ("float64", "complex128", "int64")
    narrow = dict(zip(map(np.dtype, wide), ("float32", "complex64", "int32")))

    def leaf(a):
        dtype = narrow.get(getattr(a, "dtype", None))
        return a if dtype is None else np.asarray(a, dtype)

    return jax.tree.map(leaf, tree)


def traced(unroll, layer, at, **options):
    """The gradient of a sum of outputs and final carry, traced."""
    params, carry, xs, side, steps = at
    options = options if xs is not None else options | dict(length=steps)

    def loss(params, carry):
        out = unroll(layer, params, carry, xs, side, **options)
        return sum(a.real.astype(jnp.float32).sum() for _, a in floating(out))

    inexact = [a for _, a in floating((params, carry))]
    assert inexact or not jax.tree.leaves(params)
    return jax.make_jaxpr(jax.grad(loss, (0, 1), allow_int=True))(params, carry)


def at_of(member: Member, layer, side: str):
    """Arguments; the parameters are traced, and of their values nothing but zeros."""
    shapes = jax.eval_shape(layer.init, KEY)
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
    drawn = layer._replace(init=lambda key: zeros)
    with enable_x64(True), jax.numpy_dtype_promotion("standard"):
        made = arguments(
            drawn, Case(T, (B,), side, ()), member.inputs, member.targets, 0.3, seed=1
        )
    return in_float32(made)


MEMBERS = {**CELLS, **LAYERS, **COMBINED}
PLAIN = ("elman", "lstm", "gru", "from_step", "stack", "character model")
"""Those that the fast tier has without masks, resets and keys, too."""
FULL = {*PLAIN, *tiers.SOME, *LAYERS}
"""Those that the slow tier has so; the others before a release."""
IN_FLOAT64 = {n for n in MEMBERS if {"float64", "in_dtype"} & set(re.split(r"\W+", n))}


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *[(name, "both") for name in MEMBERS if name not in IN_FLOAT64],
        *[
            tiers.slow((name, "plain"), name in PLAIN)
            if name in FULL
            else pytest.param(name, "plain", marks=pytest.mark.release)
            for name in MEMBERS
            if name not in IN_FLOAT64
        ],
    ],
)
def test_members(name, side):
    member = MEMBERS[name]
    layer = member.make()
    traced(unrolls.bptt, layer, at_of(member, layer, side))


UNROLLS = {
    "bptt": (unrolls.bptt, dict(chunk=2)),  # each stretch is traced by itself
    "scan": (unrolls.scan, {}),
    "both_modes": (unrolls.both_modes, dict(chunk=2)),
    "checkpointed": (unrolls.checkpointed, dict(chunk=2, slots=2)),
    "truncated": (unrolls.truncated, dict(window=4, stride=2)),
    "randomly_truncated": (
        unrolls.randomly_truncated, dict(mean_length=3, key=KEY)
    ),
    "reverse": (unrolls.reverse(unrolls.bptt), dict(chunk=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", UNROLLS)
@pytest.mark.parametrize(
    ("cell", "side"),
    [
        ("lstm", "plain"),
        ("lstm", "both"),
        tiers.slow(("gru", "plain"), False),
        tiers.slow(("gru", "both"), False),
    ],
)
def test_unrolls(name, cell, side):
    unroll, options = UNROLLS[name]
    member = CELLS[cell]
    made = member.make()
    traced(unroll, made, at_of(member, made, side), **options)


HOOKS = (layers.clip_d_carry(1.0), layers.scale_d_carry(0.9), layers.h_detach)


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks(hook):
    layer = layers.recurrent(cells.lstm(I, H), on_d_carry=hook)
    at = at_of(CELLS["lstm"], layer, "both")
    at = at._replace(side=at.side._replace(aux=np.ones((T, B), bool)))
    traced(unrolls.bptt, layer, at)


FLAX = {
    "simple": (nn.SimpleCell, nnx.SimpleCell),
    "lstm": (nn.OptimizedLSTMCell, nnx.OptimizedLSTMCell),
    "plain lstm": (nn.LSTMCell, nnx.LSTMCell),
    "gru": (nn.GRUCell, nnx.GRUCell),
    "mgu": (nn.MGUCell, None),
}


@pytest.mark.parametrize("lengths", [None, np.array([T, 2])])
@pytest.mark.parametrize("name", FLAX)
def test_a_change_of_import(name, lengths):
    xs, rnn = jnp.ones((B, T, I)), linen.RNN(FLAX[name][0](H))
    variables = rnn.init(KEY, xs)

    def loss(variables):
        return rnn.apply(variables, xs, seq_lengths=lengths).sum()

    jax.make_jaxpr(jax.grad(loss))(variables)
    if FLAX[name][1] is not None:
        other = ours_nnx.RNN(FLAX[name][1](I, H, rngs=nnx.Rngs(0)))
        graph, params = nnx.split(other)
        jax.make_jaxpr(
            jax.grad(
                lambda p: nnx.merge(graph, p)(xs, seq_lengths=lengths).sum(),
                allow_int=True,
            )
        )(params)


MODEL = models.features((cells.gru(I, H), cells.lstm(H, H)), 2, H, dropout=0.1)
BATCH = Batch(
    jnp.ones((T, B, I)),
    Side(mask=jnp.ones((T, B), bool), targets=jnp.zeros((T, B, 2))),
)
LOOKS = {
    "gradient_flow": lambda p: diagnose.gradient_flow(MODEL, LOSS, p, BATCH),
    "contributions": lambda p: diagnose.contributions(MODEL, LOSS, p, BATCH),
    "by_lag": lambda p: diagnose.by_lag(MODEL, LOSS, p, BATCH, lags=2),
    "omega": lambda p: diagnose.omega(MODEL, LOSS, p, BATCH),
    "activity": lambda p: diagnose.activity(MODEL, p, BATCH),
    "jacobians": lambda p: diagnose.jacobians(
        cells.gru(I, H), p[0], jnp.zeros(H), BATCH.inputs[:, 0]
    ),
    "lyapunov": lambda p: diagnose.lyapunov(
        cells.gru(I, H), p[0], jnp.zeros(H), BATCH.inputs[:, 0]
    ),
}


@pytest.mark.parametrize("name", LOOKS)
def test_diagnoses(name):
    jax.make_jaxpr(LOOKS[name])(jax.eval_shape(MODEL.init, KEY))


def test_generated_symbols():
    model = models.symbols(7, I, cells.gru(I, H), 7, H)
    draw = functools.partial(models.generate, model, n=3, temperature=0.5, key=KEY)
    jax.make_jaxpr(draw)(jax.eval_shape(model.init, KEY), jnp.zeros(2, jnp.int32))


TASKS = {
    "adding": tasks.adding(batch=B, T=8),
    "coin": tasks.coin(batch=B, T=20),
    "copy_memory": tasks.copy_memory(batch=B, T=8),
    "sine": tasks.sine(batch=B, T=8),
    "temporal_order": tasks.temporal_order(batch=B, T=20),
}


@pytest.mark.parametrize("name", TASKS)
def test_tasks(name):
    task = TASKS[name]

    def losses(key):
        batch = task.train.batch(jnp.asarray(0, jnp.int32), key)
        wrong = jnp.ones((*batch.inputs.shape[:2], task.n_out))
        layer = layers.with_loss(layers.dropout(0.1), task.objective)
        return layer.fwd((), (), wrong, batch.side)[1]

    jax.make_jaxpr(losses)(KEY)


ESTIMATORS = {
    "exact": estimators.exact,
    "stream": estimators.stream,
    "overlapping": functools.partial(estimators.stream, window=4, stride=2),
    "adaptive": functools.partial(diagnose.adaptive_truncation, windows=(2, 4)),
    "regularised": functools.partial(diagnose.regularised, alpha=1.0),
    "data_parallel": lambda *at: estimators.data_parallel(
        estimators.exact(*at), jax.make_mesh((1,), ("data",))
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_short_training(name):
    task = tasks.sine(batch=B, T=8)
    model = models.features((cells.gru(1, H),), 1, H)
    estimator = ESTIMATORS[name](model, task.objective)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))

    def trained(key):
        state = train.init(model, estimator, optimizer, task.train, key)
        items = jnp.arange(2, dtype=jnp.int32)
        advance = train.many_steps(estimator, optimizer, task.train.batch)
        state, _ = advance(state, items)
        add = train.evaluator(model, task.objective, task.train.batch, task.stateful)
        return add(state.params, None, items)

    jax.make_jaxpr(trained)(KEY)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_lengths_of_any_integers(dtype):
    with enable_x64(True), jax.numpy_dtype_promotion("strict"):
        mask = unrolls.sequence_mask(np.array([1, 3], dtype), 200)
    np.testing.assert_array_equal(mask.sum(0), [1, 3])
