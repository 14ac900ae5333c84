"""The compiled gradient: in the loops over single steps no weight gradient is computed.

Each weight's gradient is one product over all steps of a stretch; a plain loop that JAX
differentiates has one a step.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import Layer, layers, unrolls
from support import hlo, tiers
from support.compiled import hlo_as_users
from support.members import CELLS, UNROLLS
from support.step_by_step import step_by_step  # noqa: F401

pytestmark = hlo_as_users

T, K, B, H = (
    40,
    8,
    6,
    13,
)  # with the members' I = 3 no other product has a weight's shape
FAST = ("elman", "lstm", "gru", "mgu", "from_step", "ctrnn")


@functools.cache
def compiled(name, unroll, steps=T, lean=False, **options) -> tuple[hlo.Module, set]:
    """The program of a gradient, and the shapes of weights and of their gates."""
    cell = CELLS[name].make(H)
    layer = layers.remat(layers.recurrent(cell)) if lean else cell
    params = jax.eval_shape(cell.init, jax.random.key(0))
    carry = jax.eval_shape(lambda p: cell.init_carry(p, (B,)), params)
    dtype = jax.tree.leaves(carry)[0].dtype
    xs = jax.ShapeDtypeStruct((steps, B, 3), dtype)

    def loss(params, carry, xs):
        carry, ys = unroll(layer, params, carry, xs, **options)
        return sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves((carry, ys)))

    lowered = jax.jit(jax.grad(loss, (0, 1, 2))).lower(params, carry, xs)
    weights = {a.shape for a in jax.tree.leaves(params) if a.ndim == 2}
    return hlo.parse(lowered.compile().as_text()), gate_shapes(weights)


def gate_shapes(weights) -> set[tuple[int, ...]]:
    """Their shapes and those of some of their gates, the smaller size first."""
    return {
        tuple(sorted((rows, min(columns, H * gates))))
        for rows, columns in weights
        for gates in range(1, 1 + max(1, columns // H))
    }


def of_weights(shapes, weights) -> list:
    """Those in which some two axes are those of a weight."""
    return [
        shape
        for shape in shapes
        if any(pair in weights for pair in itertools.combinations(sorted(shape), 2))
    ]


def per_step(module, weights) -> list:
    loops = hlo.innermost_loops(module)
    assert len(loops) >= 2  # forward and backward
    return of_weights(
        [s for body in loops for s in hlo.products(hlo.inside(module, body))], weights
    )


def anywhere(module, weights) -> list:
    return of_weights(hlo.products(itertools.chain(*module.values())), weights)


@pytest.mark.parametrize("name", tiers.cells(FAST))
def test_no_weight_gradient_in_a_loop_over_steps(name):
    module, weights = compiled(name, unrolls.bptt, chunk=K)
    assert not per_step(module, weights)
    assert anywhere(module, weights)  # they are computed somewhere


@pytest.mark.parametrize("name", UNROLLS)
def test_nor_in_any_unroll(name):
    lean = isinstance(UNROLLS[name].make(), Layer)
    module, weights = compiled("elman", UNROLLS[name].unroll, lean=lean, chunk=K)
    assert not per_step(module, weights)
    assert anywhere(module, weights)


@pytest.mark.parametrize("name", tiers.cells(("lstm", "from_step")))
def test_the_plain_loop_has_one(name):
    """What the test above looks for can be found."""
    module, weights = compiled(name, unrolls.scan)
    assert per_step(module, weights)


@pytest.mark.parametrize(
    ("steps", "lean"), [(T + 3, False), (T, True)], ids=["a rest", "remat"]
)
def test_nor_in_a_shorter_last_stretch_or_one_that_runs_again(steps, lean):
    module, weights = compiled("lstm", unrolls.bptt, steps, lean, chunk=K)
    assert not per_step(module, weights)
    assert len(hlo.innermost_loops(module)) >= 3
    assert anywhere(module, weights)


KERNELS = dict(elman=3, lstm=6, gru=6, mgu=5)  # the most of JAX 0.10 and 0.12


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_of_a_step(name):
    """How many are started in each step, forward or back."""
    module, _ = compiled(name, unrolls.bptt, chunk=K)
    each = [len(hlo.kernels(module, body)) for body in hlo.innermost_loops(module)]
    assert len(each) == 2
    assert max(each) <= KERNELS[name]


@pytest.mark.parametrize("name", tiers.cells(("lstm", "gru", "mgu")))
def test_gates_are_not_cut_from_the_row_that_a_step_reads(name):
    module, _ = compiled(name, unrolls.bptt, chunk=K)
    for body in hlo.innermost_loops(module):
        assert not hlo.cut_from_what_is_read(module, body)


def test_a_cut_is_seen():
    def step(h, u):
        h = jnp.tanh(u[:, :H] + h) * u[:, H:]
        return h, h

    shapes = np.ones((B, H), "f"), np.ones((T, B, 2 * H), "f")
    text = jax.jit(lambda h, us: jax.lax.scan(step, h, us)).lower(*shapes)
    module = hlo.parse(text.compile().as_text())
    (body,) = hlo.innermost_loops(module)
    assert hlo.cut_from_what_is_read(module, body)


def test_products_are_seen_at_any_depth_of_calls():
    """Inside a loop, a fusion or a branch."""

    def step(h, x):
        h = jax.lax.cond(x.sum() > 0, lambda: jnp.tanh(h @ h.T), lambda: h)
        return h, None

    shapes = np.eye(H, dtype="f"), np.ones((T, 3), "f")
    text = jax.jit(lambda h, xs: jax.lax.scan(step, h, xs)[0]).lower(*shapes)
    module = hlo.parse(text.compile().as_text())
    (body,) = hlo.innermost_loops(module)
    assert (H, H) in hlo.products(hlo.inside(module, body))
