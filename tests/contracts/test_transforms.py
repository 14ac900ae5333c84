"""The table of transformations: each equals that of the plain loop, or raises what is
documented."""

import functools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import unrolls
from support import compiled, tiers
from support.gradients import Case, arguments_of, error, quick_jit
from support.members import CELLS, COMPLEX, UNROLLS
from support.reference import reference_jit

T, B, CHUNK = 6, 2, 3
CHUNKED = functools.partial(unrolls.bptt, chunk=CHUNK)
MEMBERS = {**CELLS, **UNROLLS, **COMPLEX}
ALL = (0, 1, 2)
OF_UNROLLS = {"grad of vmap over examples", "jvp"}
"""In the fast tier with every unroll; the gradient alone is in `test_gradients`."""
ASK_FOR_REALS = {"hessian", "jacfwd of grad", "jacfwd"}
"""JAX refuses them where an argument is complex."""


PAIRS = {"vjp", "jvp", "grad of vmap over examples", "vmap of grad over params"}
"""In the fast tier with a state of two parts, too."""
STAND_FOR_ALL = {"elman", "lstm", "from_step", "checkpointed", "complex, by hand"}
"""In the slow tier: JAX transforms the unroll, whatever the cell is."""


def over(transforms):
    """Each cell through `bptt`, and each unroll, with each transformation."""

    def marks(name, transform):
        unroll = name in UNROLLS and transform in OF_UNROLLS
        if name == "elman" or unroll or (name == "lstm" and transform in PAIRS):
            return []
        return pytest.mark.slow if name in STAND_FOR_ALL else pytest.mark.release

    return pytest.mark.parametrize(
        ("name", "transform"),
        [
            pytest.param(name, transform, marks=marks(name, transform))
            for name in MEMBERS
            for transform in transforms
            if not (name in COMPLEX and transform in ASK_FOR_REALS)
        ],
    )


def in_stretches(name):
    return functools.partial(MEMBERS[name].unroll, chunk=CHUNK)


@functools.cache
def arguments(name):
    """The cell or layer, and (params, carry, xs)."""
    cell = MEMBERS[name].make()
    return cell, arguments_of(MEMBERS[name], cell, Case(T, (B,), "plain", ()))[:3]


def loss_of(name, unroll):
    cell, _ = arguments(name)

    def loss(params, carry, xs):
        return sum(
            jnp.sum(jnp.sin(a) * a).real
            for a in jax.tree.leaves(unroll(cell, params, carry, xs))
        )

    return loss


def equal(found, want):
    found, want = jax.tree.leaves(found), jax.tree.leaves(want)
    assert max(np.abs(a).max() for a in want) > 1e-3
    for a, b in zip(found, want, strict=True):
        assert error(a, b) <= 1e-10


# Those that leave the gradient as it is: the plain loop's is computed once for all


@functools.cache
def plain(name):
    """Value and gradient by the plain loop: one program, for any numbers."""
    return reference_jit(jax.value_and_grad(loss_of(name, MEMBERS[name].plain), ALL))


@functools.cache
def plain_gradient(name):
    return plain(name)(*arguments(name)[1])


def by_vjp(f):
    def pull(*a):
        value, back = jax.vjp(f, *a)
        return value, back(jnp.ones_like(value))

    return pull


def with_value(f):
    """`jax.grad` and the function itself."""
    return lambda *a: (f(*a), jax.grad(f, ALL)(*a))


SAVED = jax.checkpoint_policies.dots_saveable
SAME = {
    "value_and_grad, not compiled": lambda f: jax.value_and_grad(f, ALL),
    "jit of grad": lambda f: quick_jit(with_value(f)),
    "grad of jit": lambda f: jax.value_and_grad(jax.jit(f), ALL),
    "vjp": lambda f: quick_jit(by_vjp(f)),
    "checkpoint": lambda f: quick_jit(jax.value_and_grad(jax.checkpoint(f), ALL)),
    "checkpoint with a policy": lambda f: quick_jit(
        jax.value_and_grad(jax.checkpoint(f, policy=SAVED), ALL)
    ),
}


@over(SAME)
def test_the_gradient_stays_the_same(name, transform):
    found = SAME[transform](loss_of(name, in_stretches(name)))(*arguments(name)[1])
    equal(found, plain_gradient(name))


# Those that compute something else: compared with the same of the plain loop


def grads(f):
    return jax.value_and_grad(f, ALL)


def nets(params):
    """Three nets, one axis in front."""
    return jax.tree.map(
        lambda a: jnp.stack([a * (1 + k / 5) for k in range(3)]), params
    )


def over_params(f):
    return lambda p, c, x: jax.vmap(grads(f), (0, None, None))(nets(p), c, x)


def over_examples(f):
    return jax.vmap(f, (None, 0, 1))


def states_of_examples(f):
    """`jax.lax.map` wants the examples in front."""
    return lambda p, c, x: jax.lax.map(
        lambda at: grads(f)(p, *at), (c, jnp.swapaxes(x, 0, 1))
    )


def summed(f):
    return lambda *a: over_examples(f)(*a).sum()


def descent(f):
    """Gradients inside a loop."""

    def run(params, carry, xs):
        def step(params, x):
            d = jax.grad(f)(params, carry, x)
            return jax.tree.map(lambda p, g: p - 0.01 * g, params, d), None

        return jax.lax.scan(step, params, jnp.stack([xs, xs[::-1]]))[0]

    return run


def of_a_loop(f):
    """The gradient of a loop, whose steps unroll."""

    def run(params, carry, xs):
        def step(total, x):
            return total * 0.5 + f(params, carry, x), None

        return jax.lax.scan(step, 0.0, jnp.stack([xs, xs[::-1]]))[0]

    return grads(run)


def grad_of_grad(f):
    def size(*a):
        return sum(
            jnp.sum((g * g.conj()).real) for g in jax.tree.leaves(jax.grad(f, ALL)(*a))
        )

    return jax.grad(size, ALL)


OTHERS = {
    "vmap over examples": over_examples,
    "vmap of grad over examples": lambda f: over_examples(grads(f)),
    "grad of vmap over examples": lambda f: grads(summed(f)),
    "vmap of grad over params": over_params,
    "lax.map of grad": states_of_examples,
    "grad inside a scan": descent,
    "grad of a scan": of_a_loop,
    "grad of grad": grad_of_grad,
    "hessian": lambda f: jax.hessian(f, 1),
    "jacfwd of grad": lambda f: jax.jacfwd(jax.grad(f), 1),
}


# The same of the plain loop, put together from its gradients at other numbers


def stacked(trees):
    return jax.tree.map(lambda *a: np.stack(a), *trees)


def of_examples(g, params, carry, xs):
    return [
        g(params, jax.tree.map(lambda a, i=i: a[i], carry), xs[:, i]) for i in range(B)
    ]


def of_their_sum(g, params, carry, xs):
    value, (d_params, d_carry, d_xs) = stacked(of_examples(g, params, carry, xs))
    d_params = jax.tree.map(lambda a: a.sum(0), d_params)
    return value.sum(), (d_params, d_carry, np.swapaxes(d_xs, 0, 1))


def of_nets(g, params, carry, xs):
    each = nets(params)
    return stacked(
        [g(jax.tree.map(lambda a, k=k: a[k], each), carry, xs) for k in range(3)]
    )


def two_steps_down(g, params, carry, xs):
    for x in (xs, xs[::-1]):
        d = g(params, carry, x)[1][0]
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, d)
    return params


def both_orders(g, params, carry, xs):
    (a, da), (b, db) = g(params, carry, xs), g(params, carry, xs[::-1])
    db = (*db[:2], db[2][::-1])
    return a * 0.5 + b, jax.tree.map(lambda a, b: a * 0.5 + b, da, db)


BY_GRADIENTS = {
    "vmap over examples": lambda *at: np.stack([v for v, _ in of_examples(*at)]),
    "vmap of grad over examples": lambda *at: stacked(of_examples(*at)),
    "grad of vmap over examples": of_their_sum,
    "vmap of grad over params": of_nets,
    "lax.map of grad": lambda *at: stacked(of_examples(*at)),
    "grad inside a scan": two_steps_down,
    "grad of a scan": both_orders,
}


REFUSED = {("checkpointed", "grad of grad")}
"""An unroll whose backward pass is a loop of as many steps as it takes."""


@over(OTHERS)
def test_equals_that_of_the_plain_loop(name, transform):
    _, at = arguments(name)
    f = quick_jit(OTHERS[transform](loss_of(name, in_stretches(name))))
    if (name, transform) in REFUSED:
        with pytest.raises(ValueError, match="unrolls.both_modes"):
            f(*at)
        return
    if transform in BY_GRADIENTS:
        want = BY_GRADIENTS[transform](plain(name), *at)
    else:
        by_jax = OTHERS[transform](loss_of(name, MEMBERS[name].plain))
        want = reference_jit(by_jax)(*at)
    equal(f(*at), want)


@pytest.mark.parametrize("name", [*tiers.cells(("elman",)), *tiers.unrolls()])
def test_jacrev(name):
    """Of all outputs and the final carry."""
    cell, at = arguments(name)
    ours, by_scan = in_stretches(name), MEMBERS[name].plain

    def jacobian(unroll):
        return jax.jacrev(lambda *a: unroll(cell, *a), ALL)

    equal(quick_jit(jacobian(ours))(*at), reference_jit(jacobian(by_scan))(*at))


# Forward mode


FORWARD = {
    "jvp": lambda f, p: jax.jvp(f, (p,), (p,)),
    "jacfwd": lambda f, p: jax.jacfwd(f)(p),
    "linearize": lambda f, p: jax.linearize(f, p)[1](p),
}


WITH_FORWARD_MODE = {"both_modes"}


@over(FORWARD)
def test_forward_mode_raises_or_is_that_of_the_plain_loop(name, transform):
    _, (params, carry, xs) = arguments(name)

    def through(unroll):
        loss = loss_of(name, unroll)
        return FORWARD[transform](lambda p: loss(p, carry, xs), params)

    if name in WITH_FORWARD_MODE:
        equal(through(in_stretches(name)), through(MEMBERS[name].plain))
        return
    with pytest.raises(TypeError, match="custom_vjp"):
        through(MEMBERS[name].unroll)


@pytest.mark.parametrize("transform", FORWARD)
def test_the_plain_loop_has_forward_mode(transform):
    """Along the parameters themselves it is their product with the gradient."""
    _, (params, carry, xs) = arguments("elman")
    f = FORWARD[transform]
    found = quick_jit(
        lambda p: f(lambda p: loss_of("elman", unrolls.scan)(p, carry, xs), p)
    )(params)
    d_params = plain_gradient("elman")[1][0]
    if transform == "jacfwd":
        equal(found, d_params)
    else:
        along = sum(jnp.vdot(params[k], d_params[k]) for k in params)
        equal(found[1] if transform == "jvp" else found, along)


# Over devices


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from bptt_jax.types import Side
from functools import partial
from support.gradients import error, quick_jit
from support.members import CELLS, UNROLLS
from support.reference import reference_jit
assert jax.device_count() == 2
jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
xs, flags = rng.normal(size=(5, 4, 3)), rng.random((2, 5, 4)) < 0.5
side = Side(mask=flags[0], resets=flags[1])
drawn = lambda shapes: jax.tree.map(lambda a: rng.normal(size=a.shape) / 2, shapes)
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

members = dict(UNROLLS, lstm=CELLS["lstm, float64"])
for name, member in members.items():
    layer = member.make()
    params = drawn(jax.eval_shape(layer.init, jax.random.key(0)))
    carry = drawn(jax.eval_shape(lambda p: layer.init_carry(p, (4,)), params))

    def gradient(unroll, *at, **options):
        def loss(params, carry, xs, side):
            out = unroll(layer, params, carry, xs, side, **options)
            return sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves(out))

        return jax.value_and_grad(loss, argnums=(0, 1, 2))(*at)

    def sharded(*at):
        l, d = gradient(member.unroll, *at, chunk=2)
        return jax.lax.psum(l, "data"), d

    by_batch = P("data"), P(None, "data")
    f = quick_jit(jax.shard_map(sharded, mesh=mesh, in_specs=(P(), *by_batch, P(None, "data")),
                                out_specs=(P(), (P(), *by_batch))))
    found = f(params, carry, xs, side)
    want = reference_jit(partial(gradient, member.plain))(params, carry, xs, side)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        assert error(a, b) < 1e-10, (name, a, b)
print("equal")
"""


def test_shard_map_with_default_settings():
    environment = {
        **os.environ,
        **compiled.environment(),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "equal", done.stderr[-3000:]


@pytest.mark.parametrize("name", ["lstm", "gru", "elman"])
def test_configs_are_initialised_without_a_batch_of_qr(name):
    """XLA:CPU of JAX 0.10.2 hangs where several such batches run at the same time."""
    cell = CELLS[name].make()
    keys = jax.random.split(jax.random.key(0), 4)
    program = jax.jit(jax.vmap(cell.init)).lower(keys)
    factored = re.findall(r"geqrf.*?tensor<([\dx]+)xf", program.as_text())
    assert factored
    assert all(shape.count("x") == 1 for shape in factored)
    init = jax.jit(cell.init)
    each = [init(key) for key in keys]
    for a, *b in zip(
        *map(jax.tree.leaves, (program.compile()(keys), *each)), strict=True
    ):
        np.testing.assert_allclose(a, np.stack(b), rtol=1e-6, atol=1e-7)
