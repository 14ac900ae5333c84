"""Steps are unrolled on GPU and TPU, and on a CPU the program is `lax.scan`'s.

What is made for a GPU or TPU is lowered here, and its steps are run on the CPU. What their
compilers make of it is in tests/elsewhere.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from bptt_jax import _pytrees as trees
from bptt_jax import cells, layers, loops, unrolls
from bptt_jax.loops import _unrolled
from support.gradients import error
from support.step_by_step import step_by_step  # noqa: F401

T, B, I, H = 24, 2, 3, 4
LENGTHS = 1, 2, 15, 16, 17, 32, 50, 67, 128


def _forward(cell, params, carry, inputs, keep, length):
    us = cell.vjp.project(params, inputs)

    def step(carry, u):
        gates = cell.vjp.gates(params, carry, u)
        after, y = cell.vjp.move(params, gates, carry)
        return after, (y, keep(params, carry, u, gates, after))

    carry, (ys, kept) = lax.scan(step, carry, us, length)
    return carry, ys, kept


def _backward(cell, save, params, inputs, carry, nexts, kept, d_carry, d_ys):
    carries = trees.before(carry, nexts)
    coeffs = save.coeffs(cell, params, inputs, carries, nexts, kept)

    def step(d_carry, at):
        return cell.vjp.backward(params, at[0], d_carry, at[1])

    d_carry, deltas = lax.scan(step, d_carry, (coeffs, d_ys), reverse=True)
    d_params, d_inputs = cells.contract(cell, params, inputs, carries, coeffs, deltas)
    return d_params, d_carry, d_inputs


PLAIN = loops.step_by_step._replace(forward=_forward, backward=_backward)


def loss(loop, cell, unroll=unrolls.bptt):
    layer = layers.recurrent(cell, loop=loop)

    def of(params, xs):
        carry = layer.init_carry(params, xs.shape[1:-1])
        return (unroll(layer, params, carry, xs)[1] ** 2).sum()

    return of


def given(cell, T=T):
    return jax.eval_shape(
        lambda: (cell.init(jax.random.key(0)), jnp.zeros((T, B, I), jnp.float32))
    )


CELLS = dict(elman=cells.elman, lstm=cells.lstm, gru=cells.gru)
TRANSFORMED = {
    "value": lambda f: f,
    "gradient": lambda f: jax.value_and_grad(f, (0, 1)),
    "batch of examples": lambda f: jax.vmap(jax.grad(f), (None, 1)),
    "batch of parameters": lambda f: jax.vmap(jax.grad(f), (0, None)),
    "again": lambda f: jax.grad(jax.checkpoint(f)),
    "forward over reverse": lambda f: lambda p, x: jax.jvp(jax.grad(f), (p, x), (p, x)),
}


SHORTER = 23
"""Steps of which the first stretch is shorter."""


def _all_of_an_lstm_and_some(steps, name, of) -> list:
    """Each transformation, cell and length is in the fast tier, not all of each other."""
    fast = of == "gradient" or (name == "lstm" and steps == T)
    return [] if fast else [pytest.mark.release]


@pytest.mark.parametrize(
    ("T", "name", "of"),
    [
        pytest.param(steps, name, of, marks=_all_of_an_lstm_and_some(steps, name, of))
        for steps in (T, SHORTER)
        for name in CELLS
        for of in TRANSFORMED
    ],
)
def test_on_a_cpu_the_program_is_that_of_a_scan(name, of, T):
    cell, texts = CELLS[name](I, H), []
    params, xs = given(cell, T)
    if of == "batch of parameters":
        params = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((3, *a.shape), a.dtype), params
        )
    for loop in (loops.step_by_step, PLAIN):
        f = jax.jit(TRANSFORMED[of](loss(loop, cell)))
        texts.append(f.lower(params, xs).as_text())
    assert renamed(texts[0]) == renamed(texts[1])


def renamed(text: str) -> str:
    """Functions by their order: JAX numbers them by all that it has ever made."""
    names = list(dict.fromkeys(re.findall(r"@\w+", text)))
    return re.sub(r"@\w+", lambda m: f"@{names.index(m[0])}", text)


def turning(f, platform, *args) -> int:
    """Loops of a lowered program."""
    made = export.export(jax.jit(f), platforms=[platform])(*args)
    return len(re.findall(r"stablehlo\.while", made.mlir_module()))


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
@pytest.mark.parametrize("of", ["gradient", "batch of examples", "batch of parameters"])
def test_elsewhere_only_loops_over_stretches_are_left(of, platform):
    cell = cells.lstm(I, H)
    params, xs = given(cell)
    if of == "batch of parameters":
        params = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((3, *a.shape), a.dtype), params
        )
    f = TRANSFORMED[of](loss(None, cell))
    assert turning(f, platform, params, xs) == 2
    assert turning(f, "cpu", params, xs) == 4


def traced(length, reverse):
    """A scan with constants, states and outputs of several kinds, as the primitive has it."""

    def f(w, carry, xs):
        def step(carry, x):
            h, n = carry
            h = jnp.tanh(h @ w + x)
            return (h, n + 1), (h * 2, n)

        return _unrolled.scan(step, carry, xs, length, reverse)

    draw = lambda *shape: 1 + np.random.default_rng(0).normal(size=shape)
    args = draw(H, H) / 2, (draw(B, H), np.int32(5)), draw(length, B, H)
    (eqn,) = [
        e for e in jax.make_jaxpr(f)(*args).jaxpr.eqns if e.primitive is _unrolled._scan
    ]
    return eqn.params, jax.tree.leaves(args)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_steps_are_those_of_the_scan(length, reverse):
    params, args = traced(length, reverse)

    @jax.jit
    def both(*a):
        found = _unrolled._unrolled(*a, **params)
        return _unrolled.scan_p.bind(*a, **params), found

    want, found = both(*args)
    assert len(found) == len(want)
    for a, b in zip(found, want, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert error(a, b) <= 1e-12


@pytest.mark.parametrize("length", LENGTHS)
def test_a_body_is_of_few_steps(length):
    steps = _unrolled.body_length(length)
    assert 1 <= steps <= _unrolled.LONGEST
    assert length > _unrolled.LONGEST or steps == length
    params, args = traced(length, False)
    made = jax.make_jaxpr(lambda *a: _unrolled._unrolled(*a, **params))(*args)
    (scan,) = [e for e in made.jaxpr.eqns if e.primitive.name == "scan"]
    assert scan.params["unroll"] == steps


def test_states_are_held_between_steps_and_on_the_way_back_the_deltas_of_all():
    for reverse in (False, True):
        params, args = traced(8, reverse)
        made = jax.make_jaxpr(lambda *a, p=params: _unrolled._unrolled(*a, **p))(*args)
        around = [e.primitive.name for e in made.jaxpr.eqns]
        assert ("optimization_barrier" in around) is reverse
        (scan,) = [e for e in made.jaxpr.eqns if e.primitive.name == "scan"]
        assert ("optimization_barrier" in str(scan.params["jaxpr"])) is not reverse


def test_one_exported_program_is_for_several_platforms():
    """And runs here."""
    cell, rng = cells.gru(I, H), np.random.default_rng(0)
    params, xs = jax.tree.map(
        lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), given(cell)
    )
    f = jax.jit(jax.grad(loss(None, cell)))
    platforms = ("cpu", "cuda", "rocm", "tpu")
    made = export.export(f, platforms=platforms)(params, xs)
    assert made.platforms == platforms
    found, want = made.call(params, xs), f(params, xs)
    assert all(
        jax.tree.leaves(jax.tree.map(lambda a, b: error(a, b) <= 1e-6, found, want))
    )


def test_a_step_with_effects_stays_a_scan_and_has_them():
    seen = []

    def step(carry, x):
        jax.debug.callback(lambda x: seen.append(float(x)), x)
        return carry + x, x

    f = jax.jit(lambda xs: _unrolled.scan(step, 0.0, xs))
    names = [e.primitive.name for e in jax.make_jaxpr(f)(jnp.ones(3)).jaxpr.eqns]
    assert "bptt_jax_scan" not in str(names)
    jax.block_until_ready(f(jnp.arange(3.0)))
    jax.effects_barrier()
    assert sorted(seen) == [0.0, 1.0, 2.0]


def test_without_jit_and_one_after_another():
    step = lambda carry, x: (carry + x, carry * x)
    want = lax.scan(step, 1.0, jnp.arange(5.0))
    with jax.disable_jit():
        found = _unrolled.scan(step, 1.0, jnp.arange(5.0))
    for result in (found, _unrolled.scan(step, 1.0, jnp.arange(5.0))):
        assert error(result[0], want[0]) == 0
        assert error(result[1], want[1]) == 0


def test_a_loop_is_transposed():
    """With respect to its states and inputs; of numbers that nobody asks for there is none."""
    a = jnp.linspace(0.5, 0.9, 6)

    def f(scan, carry, xs):
        step = lambda carry, at: (carry * at[1] + at[0], carry)
        return scan(step, carry, (xs, a))

    like = jnp.zeros(()), jnp.zeros(6)
    d = jnp.asarray(2.0), jnp.arange(6.0)
    for g in (lambda r: r, lambda r: r[1]):

        def back(scan, g=g):
            return jax.linear_transpose(lambda *of: g(f(scan, *of)), *like)(g(d))

        try:
            want = back(lax.scan)
        except AssertionError:
            pytest.skip("JAX 0.7 transposes no scan whose coefficients are inputs")
        for x, y in zip(back(_unrolled.scan), want, strict=True):
            assert error(x, y) <= 1e-12
