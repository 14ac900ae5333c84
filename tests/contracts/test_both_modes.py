"""Forward mode beside reverse mode: tangents against NumPy, second derivatives against the
plain loop, and what of JAX made a primitive of our own necessary."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_derivatives import linear_call

from bptt_jax import cells, layers, loops, unrolls
from bptt_jax.types import Side
from bptt_jax.unrolls import _both_modes
from bptt_jax.unrolls._linear import Map, linear
from oracles import complex_slopes
from support import tiers
from support.compiled import hlo_as_users
from support.gradients import Case, arguments_of, error, floating, quick_jit
from support.members import CELLS, LAYERS, Member
from support.reference import reference_jit

T, B, I, H = 7, 2, 3, 4
CHUNKED = functools.partial(unrolls.both_modes, chunk=3)
PARAMS, CARRY, XS = 0, 1, 2
ALL = (PARAMS, CARRY, XS)


@functools.cache
def problem(name, side="both", batch_shape=(B,), steps=T):
    """A layer and its arguments, NaN in what is padded."""
    member = CELLS.get(name) or LAYERS[name]
    layer = member.make()
    return layer, arguments_of(member, layer, Case(steps, batch_shape, side, ()))


def directions(tree, seed=3):
    """Random ones; where an argument is not floating there is none (float0)."""
    rng = np.random.default_rng(seed)

    def leaf(a):
        if jnp.issubdtype(jnp.result_type(a), jnp.inexact):
            return rng.normal(size=np.shape(a))
        return np.zeros(np.shape(a), jax.dtypes.float0)

    return jax.tree.map(leaf, tree)


def equal(found, want, tolerance=1e-10):
    found = [a for _, a in floating(found)]
    want = [a for _, a in floating(want)]
    assert max(np.abs(a).max() for a in want) > 1e-3
    for a, b in zip(found, want, strict=True):
        assert error(a, b) <= tolerance


# Tangents, against the papers' equations in NumPy at complex arguments


LENGTHS = [(1, ()), (2, (3,)), (7, (2, 2))]
FAST_LENGTHS = [("elman", 1), ("elman", 2), ("lstm", 7)]


def _of_tangents(name, steps) -> list:
    if (name, steps) in FAST_LENGTHS:
        return []
    slow = name in tiers.SOME and steps == 7
    return [pytest.mark.slow if slow else pytest.mark.release]


@pytest.mark.parametrize(
    ("name", "at"),
    [
        pytest.param(name, at, marks=_of_tangents(name, at[0]))
        for name in CELLS
        for at in LENGTHS
    ],
)
def test_tangents_equal_numpy(name, at):
    steps, batch_shape = at
    cell, at = problem(name, "both", batch_shape, steps)
    reference = CELLS[name].reference
    if reference is None:
        pytest.skip("no equations in NumPy")
    leaves, structure = jax.tree.flatten(at[:3])

    def run(leaves):
        return CHUNKED(cell, *structure.unflatten(leaves), at.side)

    shapes = [a for _, a in floating(jax.eval_shape(run, leaves))]
    rng = np.random.default_rng(4)
    cotangents = [rng.normal(size=a.shape) for a in shapes]

    @quick_jit
    def slope(along):
        _, d_out = jax.jvp(run, (leaves,), (along,))
        return total(cotangents, d_out)

    wanted = complex_slopes(reference, *at[:4], cotangents)
    assert len(wanted) == len(leaves)
    for i, (v, want) in enumerate(wanted):
        along = [np.zeros_like(a) for a in leaves]
        along[i] = v
        assert abs(slope(along) - want) <= 1e-10 * max(1.0, abs(want))
    assert max(abs(want) for _, want in wanted) > 1e-2


# Everything that is composed of both directions, against the plain loop


def outputs(unroll, layer, side):
    return lambda *a: unroll(layer, *a, side)


def loss_of(unroll, layer, side):
    def loss(*a):
        out = floating(unroll(layer, *a, side))
        return sum(jnp.sum(jnp.sin(x) * x) for _, x in out)

    return loss


def total(tree, other):
    return sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (tree, other))))


def nets(params):
    return jax.tree.map(lambda a: jnp.stack([a, a * 1.2]), params)


def of_a_loop(f):
    """The function whose steps, in an outer loop, are `f` at other inputs."""

    def run(params, carry, xs):
        def step(total, x):
            return total * 0.5 + f(params, carry, x), None

        return jax.lax.scan(step, jnp.zeros(()), jnp.stack([xs, xs * 1.2]))[0]

    return run


FIRST = {  # (outputs, loss, arguments, directions) -> derivatives
    "jvp": lambda g, f, a, d: jax.jvp(g, a, d),
    "jvp along params": lambda g, f, a, d: jax.jvp(
        lambda p: g(p, *a[1:]), a[:1], d[:1]
    ),
    "jvp along inputs": lambda g, f, a, d: jax.jvp(
        lambda x: g(*a[:2], x), a[2:], d[2:]
    ),
    "linearize": lambda g, f, a, d: jax.linearize(g, *a)[1](*d),
    "transpose of linearize": lambda g, f, a, d: jax.linear_transpose(
        jax.linearize(g, *a)[1], *a
    )(jax.tree.map(jnp.cos, g(*a))),
    "gradient": lambda g, f, a, d: jax.grad(f, ALL)(*a),
    "jacfwd": lambda g, f, a, d: jax.jacfwd(g, CARRY)(*a),
    "jacrev": lambda g, f, a, d: jax.jacrev(g, CARRY)(*a),
}
SECOND = {
    "hessian": lambda g, f, a, d: jax.hessian(f, CARRY)(*a),
    "jacrev of jacfwd": lambda g, f, a, d: jax.jacrev(jax.jacfwd(f, CARRY), CARRY)(*a),
    "jacrev of jacrev": lambda g, f, a, d: jax.jacrev(jax.jacrev(f, CARRY), CARRY)(*a),
    "jacfwd of jacfwd": lambda g, f, a, d: jax.jacfwd(jax.jacfwd(f, CARRY), CARRY)(*a),
    "jvp of grad": lambda g, f, a, d: jax.jvp(jax.grad(f, ALL), a, d)[1],
    "grad of jvp": lambda g, f, a, d: jax.grad(lambda a: jax.jvp(f, a, d)[1])(a),
    "grad of grad": lambda g, f, a, d: jax.grad(
        lambda a: total(jax.grad(f, ALL)(*a), d)
    )(a),
    "third derivative": lambda g, f, a, d: jax.jvp(
        lambda *a: jax.jvp(jax.grad(f, ALL), a, d)[1], a, d
    )[1],
}
INSIDE = {
    "vmap of jvp over params": lambda g, f, a, d: jax.vmap(
        lambda p: jax.jvp(lambda p: g(p, *a[1:]), (p,), d[:1])
    )(nets(a[0])),
    "vmap of grad over params": lambda g, f, a, d: jax.vmap(
        jax.grad(f, ALL), (0, None, None)
    )(nets(a[0]), *a[1:]),
    "vmap of hvp over params": lambda g, f, a, d: jax.vmap(
        lambda p: jax.jvp(jax.grad(lambda p: f(p, *a[1:])), (p,), d[:1])[1]
    )(nets(a[0])),
    "jvp of checkpoint": lambda g, f, a, d: jax.jvp(jax.checkpoint(f), a, d),
    "grad of checkpoint": lambda g, f, a, d: jax.grad(jax.checkpoint(f), ALL)(*a),
    "jvp of a scan": lambda g, f, a, d: jax.jvp(of_a_loop(f), a, d),
    "grad of a scan": lambda g, f, a, d: jax.grad(of_a_loop(f), ALL)(*a),
}
TRANSFORMS = {**FIRST, **SECOND, **INSIDE}
QUICKLY = {  # in the fast tier; a slope of an LSTM is compared with NumPy above
    "elman": (
        *("linearize", "vmap of jvp over params", "jvp of checkpoint"),
        *("grad of a scan", "jvp of grad", "grad of jvp"),
    ),
    "lstm": ("gradient",),
    "gru": ("jvp",),
    "from_step": ("jvp along inputs",),
}


def both_ways(name, side, transform):
    """Through our unroll, and of the plain loop."""
    layer, at = problem(name, side)
    d = directions(at[:3])

    def through(unroll):
        g, f = outputs(unroll, layer, at.side), loss_of(unroll, layer, at.side)
        return lambda a: transform(g, f, a, d)

    return through(CHUNKED), through(unrolls.scan), at[:3]


def fast(name, transform):
    return transform in QUICKLY.get(name, ())


SLOWLY = {"lstm": (), "gru": ("grad of jvp",), "from_step": ()}
"""All of an Elman cell, which stands for the others: JAX transforms the unroll."""


def transformed() -> list:
    """All cells with all transforms."""

    def mark(name, transform):
        if fast(name, transform):
            return []
        slow = transform in SLOWLY.get(name, TRANSFORMS if name == "elman" else ())
        return pytest.mark.slow if slow else pytest.mark.release

    return [
        pytest.param(name, transform, marks=mark(name, transform))
        for name in CELLS
        for transform in TRANSFORMS
    ]


@pytest.mark.parametrize(("name", "transform"), transformed())
def test_equals_the_plain_loop(name, transform):
    """With masks, resets and keys."""
    ours, plain, at = both_ways(name, "both", TRANSFORMS[transform])
    equal(*reference_jit(lambda a: (ours(a), plain(a)))(at))


@pytest.mark.parametrize("transform", ["jvp", "linearize", "jvp of grad"])
def test_not_compiled(transform):
    ours, plain, at = both_ways("elman", "plain", TRANSFORMS[transform])
    equal(ours(at), reference_jit(plain)(at))


SLOW_LAYERS = ("dropout, zoneout", "with_loss, weighted")


@pytest.mark.parametrize(
    "name",
    [
        "character model",
        *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW_LAYERS),
    ],
)
def test_tangents_of_layers(name):
    """Inputs that are integers, keys, targets, a layer that runs again."""
    layer, at = problem(name, "both")
    move = (at.params, at.carry), directions((at.params, at.carry))

    def slopes(unroll, *move):
        return jax.jvp(lambda p, c: unroll(layer, p, c, at.xs, at.side), *move)[1]

    both = lambda *move: (slopes(CHUNKED, *move), slopes(unrolls.scan, *move))
    equal(*reference_jit(both)(*move))


def test_integers_among_params_and_no_inputs():
    def step(p, h, x):
        h = jnp.tanh(h @ p["w"] * p["times"].astype(h.dtype))
        return h, h

    def init(key):
        return dict(w=jax.random.normal(key, (H, H)), times=jnp.asarray(1, jnp.int32))

    cell = cells.from_step(step, init, lambda p, shape: jnp.zeros((*shape, H)))
    at = arguments_of(Member(lambda: cell, None), cell, Case(T, (B,), "plain", ()))
    d = directions(at.params)

    def run(unroll, params):
        run = lambda p: unroll(cell, p, at.carry, None, length=T)
        return jax.jvp(run, (params,), (d,))

    equal(
        *quick_jit(lambda p: (run(CHUNKED, p)[1], run(unrolls.scan, p)[1]))(at.params)
    )


def test_any_chunk():
    layer, at = problem("elman")
    d = directions(at[:3])

    def run(unroll, *a):
        return jax.jvp(lambda *a: unroll(layer, *a, at.side), a, d)

    each = [functools.partial(unrolls.both_modes, chunk=k) for k in (1, 2, 7, None)]
    arms = *each, unrolls.scan
    *found, want = quick_jit(lambda *a: [run(arm, *a) for arm in arms])(*at[:3])
    for one in found:
        equal(one, want)


def test_in_bfloat16():
    cell = cells.gru(I, H, param_dtype=jnp.bfloat16)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: rng.normal(size=a.shape).astype(a.dtype) / 2,
        jax.eval_shape(cell.init, jax.random.key(0)),
    )
    carry, xs = np.zeros((B, H), jnp.bfloat16), np.ones((T, B, I), jnp.bfloat16)
    wide = jax.tree.map(lambda a: a.astype(np.float64), (params, carry, xs))
    wide_cell = cells.gru(I, H, param_dtype=jnp.float64)

    def gradient(unroll, *at):
        return jax.grad(lambda *a: unroll(cell, *a)[1].sum(), ALL)(*at)

    @quick_jit
    def run(at, wide):
        slope = lambda unroll, cell, p, *at: jax.jvp(
            lambda p: unroll(cell, p, *at), (p,), (p,)
        )
        by_bptt = functools.partial(unrolls.bptt, chunk=3)
        return (
            slope(CHUNKED, cell, *at),
            slope(unrolls.scan, wide_cell, *wide)[1],
            (gradient(CHUNKED, *at), gradient(by_bptt, *at)),
        )

    (out, d_out), want, alike = run((params, carry, xs), wide)
    chex.assert_trees_all_equal_shapes_and_dtypes(out, d_out)
    assert error(d_out[1], want[1]) <= 0.1
    chex.assert_trees_all_equal(*alike)


def test_directions_are_told_apart_where_their_arguments_look_alike():
    """As many units as inputs: tangents of (carry, xs) have the shapes of (carry, ys)."""
    cell = cells.elman(H, H)
    at = arguments_of(Member(lambda: cell, H), cell, Case(T, (B,), "plain", ()))
    d = directions(at[1:3])

    def both(unroll):
        out, push = jax.linearize(lambda c, x: unroll(cell, at.params, c, x), *at[1:3])
        d_out = push(*d)
        return d_out, jax.linear_transpose(push, *at[1:3])(d_out)

    equal(*quick_jit(lambda: (both(CHUNKED), both(unrolls.scan)))())
    out = jax.eval_shape(lambda: unrolls.scan(cell, *at[:3]))
    alike = [a.shape for a in jax.tree.leaves((out, at[1:3]))]
    assert alike[:2] == alike[2:]


# Edits of the cotangent of the state


def detach(d, keep):
    return jax.tree.map(lambda a: jnp.where(keep, a, 0.0), d)


def test_a_detached_state_is_detached_in_forward_mode():
    cell, at = problem("elman", "plain")
    keep = np.arange(T) % 3 != 0

    def stopped(params, carry, xs):
        ys = []
        for t in range(T):
            carry, y = cell.step(params, carry, xs[t])
            carry = carry if keep[t] else jax.lax.stop_gradient(carry)
            ys.append(y)
        return carry, jnp.stack(ys)

    layer, side = layers.recurrent(cell, detach), Side(aux=keep)
    d = directions(at[:3])
    arms = (
        lambda *a: CHUNKED(layer, *a, side),
        stopped,
        lambda *a: CHUNKED(cell, *a),
    )
    found, want, without = slopes(arms, at[:3], d)
    equal(found, want)
    assert error(without[1][1], found[1][1]) > 1e-3


def slopes(functions, at, d):
    """`jax.jvp` of each, in one program."""
    return quick_jit(lambda *a: [jax.jvp(f, a, d) for f in functions])(*at)


# Wrong ones are found


def test_a_wrong_backward_of_a_cell_is_seen_in_forward_mode():
    cell, at = problem("elman", "plain")
    wrong = cell._replace(
        vjp=cell.vjp._replace(
            backward=lambda *a: jax.tree.map(lambda d: d * 1.01, cell.vjp.backward(*a))
        )
    )
    d = directions(at[:3])
    arms = lambda *a: CHUNKED(wrong, *a), lambda *a: unrolls.scan(cell, *a)
    found, want = slopes(arms, at[:3], d)
    equal(found[0], want[0])
    assert error(found[1][1], want[1][1]) > 1e-3


def _first_carry_of_a_stretch(right):
    def wrong(layer, wanted, residuals, tangents, **options):
        *others, stored = residuals
        *rest, (carries, kept) = stored.stretches
        carries = jax.tree.map(lambda a: jnp.roll(a, 1, 0), carries)
        stored = dataclasses.replace(stored, stretches=[*rest, (carries, kept)])
        return right(layer, wanted, (*others, stored), tangents, **options)

    return wrong


def _no_tangent_of_the_final_carry(right):
    def wrong(*a, **options):
        d_carry, d_ys = right(*a, **options)
        return [jnp.zeros_like(d) for d in d_carry], d_ys

    return wrong


def _no_tangent_of_the_first_steps(right):
    def wrong(*a, **options):
        d_carry, d_ys = right(*a, **options)
        return d_carry, [d.at[: T % 3].set(0) for d in d_ys]

    return wrong


@pytest.mark.parametrize(
    "mutant",
    [
        _first_carry_of_a_stretch,
        _no_tangent_of_the_final_carry,
        _no_tangent_of_the_first_steps,
    ],
)
def test_wrong_tangents_are_found(mutant, monkeypatch):
    cell, at = problem("elman", "plain")
    d = directions(at[:3])
    wrong = mutant(_both_modes._push)
    jax.clear_caches()
    monkeypatch.setattr(_both_modes, "_push", wrong)
    arms = lambda *a: CHUNKED(cell, *a), lambda *a: unrolls.scan(cell, *a)
    found, want = slopes(arms, at[:3], d)
    jax.clear_caches()
    equal(found[0], want[0])
    pairs = zip(jax.tree.leaves(found[1]), jax.tree.leaves(want[1]), strict=True)
    assert max(error(a, b) for a, b in pairs) > 1e-3


# Memory, by XLA's account


def temp(f, *arguments) -> int:
    return jax.jit(f).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


@functools.cache
def small(make=cells.lstm):
    cell = make(8, 16, param_dtype=jnp.float64)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    return cell, (params, jax.ShapeDtypeStruct((400, 4, 8), jnp.float64))


def squares(unroll, make=cells.lstm):
    cell, _ = small(make)

    def loss(params, xs):
        return (unroll(cell, params, cell.init_carry(params, (4,)), xs)[1] ** 2).sum()

    return loss


@hlo_as_users
@pytest.mark.parametrize(
    ("loop", "most"), [(loops.step_by_step, 1.02), (loops.native, 1.15)], ids=repr
)
def test_a_gradient_takes_the_memory_of_bptt(loop, most):
    """By kernels `bptt` has one stretch and no copies of its parts; here there are several."""
    with loops.preferred(loop):
        both, bptt = (
            temp(jax.grad(squares(unroll), (0, 1)), *small()[1])
            for unroll in (unrolls.both_modes, unrolls.bptt)
        )
    assert both <= most * bptt


@hlo_as_users
@pytest.mark.parametrize(
    ("make", "most"),
    [(cells.elman, 0.6), pytest.param(cells.lstm, 0.4, marks=pytest.mark.slow)],
    ids=["elman", "lstm"],
)
def test_a_gradient_of_a_jvp_takes_little(make, most):
    def memory(unroll):
        def slope(p, xs):
            return jax.jvp(lambda p: squares(unroll, make)(p, xs), (p,), (p,))[1]

        return temp(jax.grad(slope), *small(make)[1])

    assert memory(unrolls.both_modes) <= most * memory(unrolls.scan)


# The linear map by itself


def apply(residuals, arguments):
    (a,), (x, y) = residuals, arguments
    return [a @ x + 2.0 * y]


def transpose(residuals, d_results):
    """Not the transpose, by a factor: which function is called shows."""
    (a,), (d,) = residuals, d_results
    return [3.0 * (a.T @ d), 6.0 * d]


BOTH_WAYS = Map(apply, transpose)


def mapped(a, x, y):
    return linear(BOTH_WAYS, [a], [x, y], [jnp.zeros(2)])[0]


A = np.arange(6.0).reshape(2, 3) - 2.0
X, Y, D = np.array([1.0, -2.0, 3.0]), np.array([4.0, 5.0]), np.array([1.0, -1.0])


def pulled(*a):
    return jax.vjp(lambda x, y: mapped(A, x, y), *a)[1](D)


def test_linear_calls_the_transpose_that_is_given():
    np.testing.assert_array_equal(mapped(A, X, Y), A @ X + 2 * Y)
    chex.assert_trees_all_close(pulled(X, Y), (3 * A.T @ D, 6 * D), rtol=1e-15)
    chex.assert_trees_all_close(
        jax.grad(lambda y: D @ mapped(A, X, y))(Y), 6 * D, rtol=1e-15
    )


def test_linear_twice_transposed_is_itself():
    there = jax.linear_transpose(
        lambda d: jax.vjp(lambda x: mapped(A, x, Y), X)[1](d), D
    )
    np.testing.assert_allclose(there((X,))[0], A @ X, rtol=1e-15)


def test_linear_of_a_batch():
    """Of arguments, of residuals; what all examples share gets the sum."""
    many, xs = np.stack([A, 2 * A]), np.stack([X, X + 1, X - 1])
    np.testing.assert_allclose(
        jax.vmap(mapped, (None, 0, None))(A, xs, Y), xs @ A.T + 2 * Y, rtol=1e-15
    )
    np.testing.assert_allclose(
        jax.vmap(mapped, (0, None, None))(many, X, Y), many @ X + 2 * Y, rtol=1e-15
    )
    last = jax.vmap(mapped, (2, 0, None))(np.moveaxis(many, 0, 2), xs[:2], Y)
    want = np.einsum("bij,bj->bi", many, xs[:2]) + 2 * Y
    np.testing.assert_allclose(last, want, rtol=1e-15)

    def summed(y):
        return (jax.vmap(mapped, (None, 0, None))(A, xs, y) @ D).sum()

    np.testing.assert_allclose(jax.grad(summed)(Y), 3 * 6 * D, rtol=1e-15)


def test_linear_has_a_derivative_along_residuals():
    d_a = A[::-1] + 1
    _, d = jax.jvp(mapped, (A, X, Y), (d_a, X, Y))
    np.testing.assert_allclose(d, d_a @ X + A @ X + 2 * Y, rtol=1e-15)
    np.testing.assert_allclose(
        jax.grad(lambda a: D @ mapped(a, X, Y))(A), np.outer(D, X), rtol=1e-15
    )


# Why `linear` is there. Where one of these fails, JAX has learnt it: see decision 0009


def called(a, x, y):
    return linear_call(apply, transpose, [a], [x, y])[0]


def test_jax_has_no_batches_of_linear_call():
    np.testing.assert_array_equal(called(A, X, Y), mapped(A, X, Y))
    with pytest.raises(NotImplementedError, match=r"Batching rule.*linear_call"):
        jax.vmap(called, (None, 0, None))(A, np.stack([X, X]), Y)


def test_jax_has_no_derivative_of_linear_call_along_residuals():
    with pytest.raises(AssertionError):
        jax.jvp(called, (A, X, Y), (A, X, Y))


def test_jax_transposes_linear_call_for_all_arguments_only():
    jax.vjp(lambda x, y: called(A, x, y), X, Y)[1](D)
    with pytest.raises(AssertionError):
        jax.linear_transpose(lambda y: called(A, X, y), Y)(D)
