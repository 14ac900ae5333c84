"""`unrolls.truncated` is the plain loop with `stop_gradient` where a window begins."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, layers, unrolls
from bptt_jax._jax import enable_x64
from support import tiers
from support.compiled import hlo_as_users
from support.gradients import QUICK, Case, arguments_of, gradients, worst
from support.members import CELLS, LAYERS
from support.reference import AS_REFERENCE


def stopped(layer, params, carry, xs, side, *, window, stride=None, run=unrolls.scan):
    """Every block of losses from a loop of its own; values from the whole loop."""
    T, stride = len(jax.tree.leaves(xs)[0]), stride or window

    def loop(carry, start, end):
        cut = lambda tree: jax.tree.map(lambda a: a[start:end], tree)  # noqa: E731
        return run(layer, params, carry, cut(xs), cut(side))

    def state(t):
        return carry if t == 0 else jax.lax.stop_gradient(loop(carry, 0, t)[0])

    pieces, last = [], None
    for end in range(T, 0, -stride):
        begin, start = max(0, end - stride), max(0, end - window)
        after, ys = loop(state(start), start, end)
        last = after if last is None else last
        pieces.insert(0, jax.tree.map(lambda a, n=begin - start: a[n:], ys))
    return last, jax.tree.map(lambda *a: jnp.concatenate(a), *pieces)


@functools.cache
def case(name, steps=7, side="both"):
    member = (CELLS | LAYERS)[name]
    layer = member.make()
    return layer, arguments_of(member, layer, Case(steps, (2,), side, ()))


def apart(name, steps, window, stride=None, chunk=None, side="both"):
    layer, at = case(name, steps, side)
    options = dict(window=window, stride=stride)
    found = gradients(
        layer, at, unrolls.truncated, chunk=chunk, compiler_options=QUICK, **options
    )
    want = gradients(layer, at, stopped, compiler_options=AS_REFERENCE, **options)
    return worst(found, want)


WINDOWS = [
    (7, 3, None, 1),
    (7, 4, 2, None),
    (7, 3, 1, None),
    (9, 6, 3, 3),
    (8, 4, 4, 2),
    (3, 8, 2, 1),
    (7, 6, 6, 4),
    (1, 2, 1, None),
]


@pytest.mark.parametrize(("steps", "window", "stride", "chunk"), WINDOWS)
@pytest.mark.parametrize("name", ["elman", "lstm"])
def test_equals_stop_gradient(name, steps, window, stride, chunk):
    off, leaf = apart(name, steps, window, stride, chunk)
    assert off <= 1e-10, leaf


@pytest.mark.parametrize(
    "name",
    [*tiers.cells(()), *(pytest.param(n, marks=pytest.mark.slow) for n in LAYERS)],
)
def test_every_cell_and_layer(name):
    off, leaf = apart(name, 7, 4, 2)
    assert off <= 1e-10, leaf


@pytest.mark.parametrize("stride", [None, 1, 2])
def test_a_window_of_the_whole_is_exact(stride):
    cell, at = case("gru")
    found = gradients(cell, at, unrolls.truncated, window=8, stride=stride)
    assert worst(found, gradients(cell, at, unrolls.bptt))[0] <= 1e-12


@pytest.mark.parametrize(("window", "stride"), [(3, None), (2, 1), (4, 2)])
def test_a_shorter_window_is_another_gradient(window, stride):
    cell, at = case("gru", side="plain")
    found = gradients(cell, at, unrolls.truncated, window=window, stride=stride)
    exact = gradients(cell, at, unrolls.bptt)
    values = [k for k in exact if k.startswith("out")]
    assert all(np.allclose(found[k], exact[k], rtol=1e-12) for k in values)
    assert worst(found, exact)[0] > 1e-3


def test_one_step_windows_see_no_lag():
    """d loss_t / d x_s is zero for every s before t."""
    cell, at = case("elman", side="plain")

    def last(xs):
        return unrolls.truncated(cell, at.params, at.carry, xs, window=1)[1][-1].sum()

    d_xs = jax.grad(last)(at.xs)
    assert np.abs(d_xs[-1]).max() > 1e-3
    np.testing.assert_array_equal(d_xs[:-1], 0)


def test_hooks_edit_the_cotangents_of_each_block_by_themselves():
    """Clipping is not linear: that of a sum is not the sum of the clipped."""
    layer = layers.recurrent(
        CELLS["elman"].make(), lambda d, aux: jnp.clip(d, -0.1, 0.1)
    )
    _, at = case("elman", side="plain")
    options = dict(window=4, stride=2)
    found = gradients(layer, at, unrolls.truncated, **options)
    by_block = functools.partial(stopped, run=unrolls.bptt)
    assert worst(found, gradients(layer, at, by_block, **options))[0] <= 1e-10
    without = gradients(CELLS["elman"].make(), at, unrolls.truncated, **options)
    assert worst(found, without)[0] > 1e-3


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (dict(window=0), "window"),
        (dict(window=2.5), "window"),
        (dict(window=4, stride=0), "stride"),
        (dict(window=4, stride=3), "stride"),
        (dict(window=4, stride=8), "stride"),
        (dict(window=4, chunk=0), "chunk"),
    ],
)
def test_senseless_options_are_named(options, name):
    cell, at = case("elman")
    with pytest.raises(ValueError, match=f"^{name}: expected .* got"):
        unrolls.truncated(cell, *at[:3], **options)


@hlo_as_users
def test_memory_is_that_of_bptt_where_windows_do_not_overlap():
    cell = cells.gru(16, 64)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((128, 32, 16), jnp.float32)

    def temp(unroll):
        def loss(params, xs):
            carry = cell.init_carry(params, (32,))
            return (unroll(cell, params, carry, xs, chunk=8)[1] ** 2).sum()

        program = jax.jit(jax.grad(loss)).lower(params, xs).compile()
        return program.memory_analysis().temp_size_in_bytes

    with enable_x64(False):
        whole = temp(unrolls.bptt)
        assert temp(functools.partial(unrolls.truncated, window=32)) <= 1.02 * whole
