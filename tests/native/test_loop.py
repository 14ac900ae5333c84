"""`loops.native`: which cells it runs, that a kernel runs where it should, and nowhere else."""

import concurrent.futures
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt_jax import Side, cells, layers, loops, unrolls
from bptt_jax.native import _step
from bptt_jax.types import Cell, Loop
from bptt_jax.verify._cases import arguments
from support.float64 import float64  # noqa: F401
from support.gradients import Case, pulled_back, worst
from support.members import CELLS, COMBINED

RUNS_STEP_BY_STEP = {
    "layer norm": "reduce_sum",  # a sum over the features of a row
    "all options": "reduce_sum",
    "zoneout": "bitcast_convert_type",  # draws in the step, where there are keys
    "learned_carry of zoneout": "reduce_sum",  # of the initial state's gradient
    "complex": "",
}
"""Members that are not native, by a part of their names, and a part of the reason."""

HLO = "bptt_jax_"  # names of kernels begin so


def reasons(layer):
    """The layer, with a loop that notes what `native` says of each cell it is given."""
    said: list = []
    plain = loops.step_by_step

    def supports(*asked):
        said.append(loops.native.supports(*asked))

    noting = Loop("noting", plain.forward, plain.backward, supports)
    return layers.with_options(layer, loop=noting), said


def of_zeros(layer):
    """The layer for a test of shapes: nothing is drawn."""
    zeros = lambda tree: jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), tree)
    return layer._replace(init=lambda key: zeros(jax.eval_shape(layer.init, key)))


@pytest.mark.parametrize("side", ["plain", "both"])
@pytest.mark.parametrize("name", [*CELLS, *COMBINED])
def test_cells_are_native_or_say_why(name, side):
    member = {**CELLS, **COMBINED}[name]
    made = member.make()
    layer = layers.recurrent(made) if isinstance(made, Cell) else made
    layer, said = reasons(layer)
    case = Case(3, (2,), side, (None,))
    at = arguments(of_zeros(layer), case, member.inputs, member.targets, 0.0, seed=1)
    more = dict(length=at.T) if at.xs is None else {}

    def run(params):
        return unrolls.bptt(layer, params, at.carry, at.xs, at.side, **more)

    jax.eval_shape(lambda p: jax.vjp(run, p)[0], at.params)
    expected = [reason for part, reason in RUNS_STEP_BY_STEP.items() if part in name]
    native = not expected or (
        "zoneout" in name and side == "plain"
    )  # it draws nothing then
    native = native and "learned_carry of zoneout" != name
    if native:
        assert set(said) == {None}
    else:
        assert None not in said
        assert all(any(e in reason for e in expected) for reason in said)


any_shape = given(
    name=st.sampled_from(("lstm", "gru", "before", "elman", "peepholes")),
    T=st.integers(1, 9),
    batch=st.sampled_from(((), (1,), (2,), (7,), (3, 2), (33,), (70,), (2, 26))),
    hidden=st.integers(1, 40),
    chunk=st.integers(1, 9),
    flags=st.sampled_from(("plain", "mask", "resets", "both")),
    dtype=st.sampled_from((np.float32, np.float64)),
    large=st.sampled_from((0, _step.LARGE)),
)


def _any_shape(name, T, batch, hidden, chunk, flags, dtype, large):
    """Gradients of both loops are one: float64 to 1e-10, float32 to its rounding.

    large: from how many operations on other threads are asked for.
    """
    make = dict(
        lstm=cells.lstm,
        gru=cells.gru,
        before=functools.partial(cells.gru, reset_after=False),
        elman=cells.elman,
        peepholes=functools.partial(cells.lstm, peepholes=True),
    )[name]
    cell = make(3, hidden, param_dtype=dtype)
    rng = np.random.default_rng(T * 31 + hidden)
    draw = lambda a: rng.normal(size=a.shape).astype(dtype) * 0.7
    params = jax.tree.map(draw, jax.eval_shape(cell.init, jax.random.key(0)))
    carry = jax.tree.map(
        draw, jax.eval_shape(lambda p: cell.init_carry(p, batch), params)
    )
    xs = rng.normal(size=(T, *batch, 3)).astype(dtype)
    flag = lambda: rng.random((T, *batch)) < 0.6
    side = Side(
        mask=flag() if flags in ("mask", "both") else None,
        resets=flag() if flags in ("resets", "both") else None,
    )
    found = {}
    for loop in (loops.native, loops.step_by_step):
        layer = layers.recurrent(cell, loop=loop)

        def run(params, carry, xs, layer=layer):
            return unrolls.bptt(layer, params, carry, xs, side, chunk=chunk)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_step, "LARGE", large)
            found[loop] = pulled_back(run, params, carry, xs)
    difference, leaf = worst(found[loops.native], found[loops.step_by_step])
    assert difference < (1e-10 if dtype == np.float64 else 2e-4), leaf


@settings(max_examples=5, deadline=None)
@any_shape
def test_any_shape(**drawn):
    _any_shape(**drawn)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@any_shape
def test_many_shapes(**drawn):
    _any_shape(**drawn)


def made(T=4, batch=(3,), hidden=5, **options):
    layer = layers.recurrent(cells.lstm(2, hidden), loop=loops.native, **options)
    with jax.numpy_dtype_promotion("standard"):
        params = layer.init(jax.random.key(0))
        xs = jax.random.normal(jax.random.key(1), (T, *batch, 2), jnp.float32)
    return layer, params, layer.init_carry(params, batch), xs


def loss(layer, params, carry, xs):
    _, ys = unrolls.bptt(layer, params, carry, xs)
    return jnp.sum(ys * ys)


def kernels(f, *arguments) -> int:
    """Calls of kernels in a compiled program."""
    return (
        jax.jit(f)
        .lower(*arguments)
        .compile()
        .as_text()
        .count(f'custom_call_target="{HLO}')
    )


def test_a_gradient_is_two_kernels():
    layer, *at = made()
    assert kernels(jax.grad(functools.partial(loss, layer)), *at) == 2
    assert kernels(functools.partial(loss, layer), *at) == 1


def test_a_gradient_writes_three_steps(monkeypatch):
    """Forward, its way back as it is asked for, and without what nobody takes of it."""
    written, init = [], _step.NativeStep.__init__

    def counted(step, program, kinds):
        written.append(kinds.reverse)
        init(step, program, kinds)

    monkeypatch.setattr(_step.NativeStep, "__init__", counted)
    layer, *at = made(hidden=17)  # of which no other test's step is kept
    for _ in range(2):
        jax.jit(jax.grad(functools.partial(loss, layer))).lower(*at)
    assert written == [False, True, True]


@pytest.mark.parametrize("stored", [True, False], ids=("stored", "computed"))
def test_bfloat16_is_computed_in_float32(stored):
    """A sum of 300 steps that bfloat16 has no room for; and what comes out is rounded once."""
    cell = cells.elman(1, 2, activation=lambda z: z, param_dtype=jnp.bfloat16)
    cell = cell if stored else cells.in_dtype(cell, jnp.bfloat16)
    layer = layers.recurrent(cell, loop=loops.native)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(cell.init, jax.random.key(0)))
    one = jnp.bfloat16 if stored else jnp.float32
    params = jax.tree.map(lambda a: a.astype(one), zeros)
    params |= dict(w_x=params["w_x"] + 1, w_h=jnp.eye(2, dtype=one))
    carry, xs = layer.init_carry(params, (3,)), jnp.ones((300, 3, 1), one)

    def last(params, xs):
        return unrolls.bptt(layer, params, carry, xs)[1][-1]

    assert kernels(last, params, xs) == 1
    ys = jax.jit(last)(params, xs)
    assert ys.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ys.astype(jnp.float32), 300)  # 256 + 1 is 256 there

    def total(params, xs):
        return last(params, xs).astype(jnp.float32).sum()

    assert kernels(jax.grad(total), params, xs) == 2
    d_params = jax.jit(jax.grad(total))(params, xs)
    assert {a.dtype for a in jax.tree.leaves(d_params)} == {jnp.dtype(one)}
    np.testing.assert_array_equal(d_params["b"].astype(jnp.float32), 900)


def test_float16_is_step_by_step():
    layer, said = reasons(layers.recurrent(cells.gru(2, 3, param_dtype=jnp.float16)))
    params = layer.init(jax.random.key(0))
    carry, xs = layer.init_carry(params, (2,)), jnp.ones((4, 2, 2), jnp.float16)
    unrolls.bptt(layer, params, carry, xs)
    assert said
    assert all("float16" in reason for reason in said)


def test_examples_under_vmap_are_rows():
    """One call for all of them, with the numbers of each by itself."""
    layer, params, carry, xs = made(batch=(6, 3))
    f = jax.grad(functools.partial(loss, layer), argnums=(0, 2))
    mapped = jax.vmap(f, (None, 0, 1))
    assert kernels(mapped, params, carry, xs) == 2
    found = jax.jit(mapped)(params, carry, xs)
    for i in range(6):
        one = f(params, jax.tree.map(lambda a, i=i: a[i], carry), xs[:, i])
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(a[i], b, 1e-5, 1e-6)


@pytest.mark.parametrize("of_xs", [None, 0], ids=("one input", "an input each"))
def test_parameters_under_vmap_are_models(of_xs):
    layer, params, carry, xs = made()
    many = jax.tree.map(lambda a: jnp.stack([a, a * 2, a - 1]), params)
    inputs = xs if of_xs is None else jnp.stack([xs, xs + 1, xs * 2])
    f = jax.grad(functools.partial(loss, layer))
    mapped = jax.vmap(f, (0, None, of_xs))
    assert kernels(mapped, many, carry, inputs) == 2
    found = jax.jit(mapped)(many, carry, inputs)
    for i in range(3):
        x = inputs if of_xs is None else inputs[i]
        one = f(jax.tree.map(lambda a, i=i: a[i], many), carry, x)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(a[i], b, 1e-5, 1e-6)


def test_models_of_models_are_the_definition():
    layer, params, carry, xs = made()
    many = jax.tree.map(lambda a: jnp.stack([jnp.stack([a, a * 2])] * 2), params)
    f = jax.vmap(
        jax.vmap(functools.partial(loss, layer), (0, None, None)), (0, None, None)
    )
    assert kernels(f, many, carry, xs) == 0
    found = jax.jit(f)(many, carry, xs)
    one = loss(layer, jax.tree.map(lambda a: a[1, 1], many), carry, xs)
    np.testing.assert_allclose(found[1, 1], one, 1e-5)


def test_an_exported_program_has_no_kernel():
    layer, *at = made()
    f = jax.jit(jax.grad(functools.partial(loss, layer)))
    exported = jax.export.export(f, platforms=("cpu", "cuda", "tpu"))(*at)
    assert f"custom_call @{HLO}" not in exported.mlir_module()
    here, there = f(*at), exported.call(*at)
    for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def test_without_jit_it_is_step_by_step():
    layer, *at = made()
    with jax.disable_jit():
        found = loss(layer, *at)
    np.testing.assert_allclose(
        found, jax.jit(functools.partial(loss, layer))(*at), 1e-6
    )


def test_derivatives_of_any_order():
    layer, params, carry, xs = made(T=3, batch=(), hidden=2)
    plain = layers.recurrent(cells.lstm(2, 2), loop=loops.step_by_step)
    for f in (
        lambda layer: jax.hessian(lambda c: loss(layer, params, c, xs)),
        lambda layer: jax.grad(lambda c: jax.tree.leaves(
            jax.grad(lambda c: loss(layer, params, c, xs))(c))[0].sum()),
    ):  # fmt: skip
        for a, b in zip(
            jax.tree.leaves(f(layer)(carry)),
            jax.tree.leaves(f(plain)(carry)),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, 1e-4, 1e-5)


def test_weights_are_packed_outside_the_loop_over_stretches():
    """`extras` are made where the primitive is bound, in each stretch; XLA moves them out."""
    layer, *at = made(T=64, batch=(4,), hidden=32)
    f = jax.jit(jax.grad(lambda *a: jnp.sum(unrolls.bptt(layer, *a, chunk=8)[1] ** 2)))
    text = f.lower(*at).compile().as_text()
    bodies = [b for b in text.split("\n\n") if f'custom_call_target="{HLO}' in b]
    assert len(bodies) == 2
    size = 32 * 128
    handed_on = "get-tuple-element", "custom-call", "parameter(", "tuple("
    for body in bodies:
        packed = [line for line in body.splitlines() if f"f32[{size}]" in line]
        assert packed
        assert not [line for line in packed if not any(w in line for w in handed_on)]


def test_what_cannot_be_native_says_why():
    layer = layers.recurrent(cells.lstm(2, 4, layer_norm=True), loop=loops.native)
    with jax.numpy_dtype_promotion("standard"):
        params = layer.init(jax.random.key(0))
    with pytest.raises(
        ValueError, match=r"loops\.native cannot run this: the step: .*reduce_sum"
    ):
        unrolls.bptt(
            layer, params, layer.init_carry(params, ()), jnp.ones((3, 2), jnp.float32)
        )


def test_the_environment_chooses(monkeypatch):
    f = functools.partial(loss, layers.recurrent(cells.lstm(2, 5)))
    for T, (said, n) in enumerate((("native", 1), ("step_by_step", 0)), start=2):
        monkeypatch.setenv("BPTT_JAX_LOOP", said)  # read where a program is traced
        assert kernels(f, *made(T=T)[1:]) == n
    monkeypatch.setenv("BPTT_JAX_LOOP", "fast")
    with pytest.raises(
        ValueError, match=r"BPTT_JAX_LOOP: expected one of .* got 'fast'"
    ):
        jax.jit(f).lower(*made(T=6)[1:])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_comes_out_where_it_did(bad):
    layer, params, carry, xs = made(T=5, batch=(6,))
    plain = layers.recurrent(cells.lstm(2, 5), loop=loops.step_by_step)
    xs = xs.at[2, 3].set(bad)
    found, wanted = (
        jax.jit(jax.vmap(jax.grad(lambda x, c, m=m: loss(m, params, c, x)), (1, 0)))(
            xs, carry
        )
        for m in (layer, plain)
    )
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted))
    np.testing.assert_allclose(found, wanted, 1e-5, 1e-6)


def test_a_masked_number_is_not_read():
    layer, params, carry, xs = made(T=5, batch=(6,))
    mask = jnp.ones((5, 6), bool).at[2, 3].set(False)
    run = jax.jit(
        lambda xs: jax.value_and_grad(
            lambda p: jnp.sum(unrolls.bptt(layer, p, carry, xs, Side(mask=mask))[1])
        )(params)
    )
    for a, b in zip(
        jax.tree.leaves(run(xs)),
        jax.tree.leaves(run(xs.at[2, 3].set(np.nan))),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_many_threads_call_at_once():
    layer, *at = made(T=20, batch=(16,), hidden=24)
    f = jax.jit(jax.grad(functools.partial(loss, layer)))
    wanted = jax.tree.leaves(f(*at))
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        for found in pool.map(lambda _: f(*at), range(300)):
            for a, b in zip(jax.tree.leaves(found), wanted, strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_model_says_which_parts_are_native():
    normed = cells.lstm(8, 8, layer_norm=True)
    model = layers.stack(
        layers.residual(cells.gru(3, 3)), cells.lstm(3, 8), normed, layers.dense(8, 2)
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    carry = jax.eval_shape(lambda p: model.init_carry(p, (2,)), shapes)
    xs = jax.ShapeDtypeStruct((5, 2, 3), jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        found = layers.why(model, shapes, carry, xs)
    assert found["[0]"] is None
    assert found["[1]"] is None
    assert "reduce_sum" in found["[2]"]
    assert list(found) == ["[0]", "[1]", "[2]"]


def test_subnormal_numbers_are_the_same_on_every_thread():
    """XLA flushes them to zero on its threads; rows of several of these are alike."""
    cell = cells.from_step(
        lambda p, h, x: (0.5 * h + p * x, h),
        lambda key: jnp.ones((), jnp.float32),
        lambda p, batch: jnp.zeros((*batch, 64), jnp.float32),
    )
    layer = layers.recurrent(cell, loop=loops.native)
    xs = jnp.full((200, 256, 64), np.float32(3e-39))
    one = jnp.ones((), jnp.float32)
    carry, _ = jax.jit(
        lambda xs: unrolls.bptt(layer, one, cell.init_carry(one, (256,)), xs)
    )(xs)
    assert len(np.unique(np.asarray(carry).view(np.uint32))) == 1
