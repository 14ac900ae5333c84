"""`unrolls.truncated` is the plain loop with `stop_gradient` where a window begins."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, layers, loops, unrolls
from bptt_jax._jax import enable_x64
from support import tiers
from support.compiled import hlo_as_users
from support.gradients import Case, arguments_of, of_unrolls, worst
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
    ours = partial(unrolls.truncated, chunk=chunk, **options)
    plain = partial(stopped, **options)
    return worst(*of_unrolls(layer, at, ours, plain, compiler_options=AS_REFERENCE))


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


WITH_A_SHORTER_STRETCH = WINDOWS[1], WINDOWS[6]


@pytest.mark.parametrize(
    ("name", "steps", "window", "stride", "chunk", "side"),
    [
        *(("elman", *at, "both") for at in WINDOWS),
        *(("lstm", *at, "plain") for at in WITH_A_SHORTER_STRETCH),
        *(
            pytest.param("lstm", *at, "both", marks=pytest.mark.release)
            for at in WINDOWS
        ),
    ],
)
def test_equals_stop_gradient(name, steps, window, stride, chunk, side):
    """Without resets, too: one between two blocks hides what flows from one to the other."""
    off, leaf = apart(name, steps, window, stride, chunk, side)
    assert off <= 1e-10, leaf


@pytest.mark.parametrize(
    "name",
    [*tiers.cells(()), *tiers.layers()],
)
def test_every_cell_and_layer(name):
    with loops.preferred(loops.step_by_step):  # kernels of each are in `test_gradients`
        off, leaf = apart(name, 5, 4, 2)
    assert off <= 1e-10, leaf


def test_a_window_of_the_whole_is_exact():
    cell, at = case("gru", side="plain")
    strides = None, 1, 2
    arms = [partial(unrolls.truncated, window=8, stride=stride) for stride in strides]
    *found, want = of_unrolls(cell, at, *arms, unrolls.bptt)
    for stride, each in zip(strides, found, strict=True):
        assert worst(each, want)[0] <= 1e-12, stride


def test_a_shorter_window_is_another_gradient():
    cell, at = case("gru", side="plain")
    options = [(3, None), (2, 1), (4, 2)]
    arms = [partial(unrolls.truncated, window=w, stride=s) for w, s in options]
    *found, exact = of_unrolls(cell, at, *arms, unrolls.bptt)
    values = [k for k in exact if k.startswith("out")]
    for option, each in zip(options, found, strict=True):
        assert all(np.allclose(each[k], exact[k], rtol=1e-12) for k in values), option
        assert worst(each, exact)[0] > 1e-3, option


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
    ours = partial(unrolls.truncated, **options)
    arms = (
        ours,
        partial(stopped, run=unrolls.bptt, **options),
        lambda _, *given: ours(CELLS["elman"].make(), *given),
    )
    found, want, without = of_unrolls(layer, at, *arms)
    assert worst(found, want)[0] <= 1e-10
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
        assert temp(partial(unrolls.truncated, window=32)) <= 1.02 * whole
