"""Which programs are computed row by row, and why others are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core.primitives import neg_p

from bptt_jax._jax import enable_x64
from bptt_jax.native import (
    Counts,
    Equation,
    Kinds,
    NativeStep,
    Program,
    flat,
    native_step,
)
from bptt_jax.native._program import described

B, H = 5, 4
W = np.ones((H, H), np.float32)


def made(step, batch=(B,), params=W, x=None):
    carry = np.ones((*batch, H), np.float32)
    x = carry if x is None else x
    program = jax.make_jaxpr(step)(params, carry, x)
    return native_step(program, Kinds(Counts(1, 1), len(batch)))


ROW_BY_ROW = {
    "a product": lambda w, h, x: (jnp.tanh(h @ w + x), h),
    "a transposed weight": lambda w, h, x: (h @ w.T, h),
    "two products in a chain": lambda w, h, x: ((h * (x @ w)) @ w, h),
    "gates side by side": lambda w, h, x: (
        jnp.concatenate([h[:, 2:], x[:, :2]], 1), jnp.stack([h, x], 1)
    ),
    "features turned into gates": lambda w, h, x: (
        h, jnp.tanh(jnp.reshape(h @ w, (B, 2, 2)))
    ),
    "a choice": lambda w, h, x: (jnp.where(x > 0, h, x), x > h),
    "whole numbers": lambda w, h, x: (h, (x > 0).astype(jnp.int32) * 3),
    "a call of a function": lambda w, h, x: (jax.jit(jnp.sin if False else jnp.exp)(h), h),
    "what weights alone make": lambda w, h, x: (h @ jnp.linalg.inv(w + jnp.eye(H)), h),
    "one number for all": lambda w, h, x: (h * jnp.sum(w), h),
}  # fmt: skip

NOT = {
    "a mean over examples": (lambda w, h, x: (h - h.mean(0), h), "sub of a sum over examples"),
    "the next example": (lambda w, h, x: (h[jnp.array([1, 2, 3, 4, 0])], h), "gather"),
    "examples cut apart": (
        lambda w, h, x: (jnp.concatenate([h[1:], h[:1]], 0), h), "examples that are put together"
    ),
    "the first example for all": (lambda w, h, x: (h + x[:1], h), "not kept apart"),
    "examples as features": (
        lambda w, h, x: (jnp.reshape(jnp.reshape(h, (H, B)) * 2, (B, H)), h),
        "reshape over the examples",
    ),
    "weights by example": (
        lambda w, h, x: (h + jnp.ones((B, H)) @ w, h), "an example is read as a feature"
    ),
    "an effect": (lambda w, h, x: (jax.debug.print("{}", h[0, 0]) or h, h), "effects"),
    "a product of two states": (lambda w, h, x: (h @ (h.T @ x), h), "dot_general of a sum"),
    "an operation that is not known": (lambda w, h, x: (jnp.sort(h, -1), h), "sort"),
    "a sum over features": (lambda w, h, x: (h / h.sum(-1, keepdims=True), h), "reduce_sum"),
    "numbers of another kind": (
        lambda w, h, x: (h, (h @ w).astype(jnp.float16)), "float16"
    ),
    "a float made whole": (lambda w, h, x: (h, h.astype(jnp.int32)), "float32 made int32"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_row_by_row(name):
    found = made(ROW_BY_ROW[name])
    assert isinstance(found, NativeStep), found


@pytest.mark.parametrize("name", NOT)
def test_the_reason_is_told(name):
    step, reason = NOT[name]
    found = made(step)
    assert isinstance(found, str), found
    assert reason in found


def test_examples_as_many_as_features():
    """Shapes that tell no axis from another: it is known from where a number came."""
    square = lambda w, h, x: (h @ w + x, h)
    assert isinstance(made(square, (H,)), NativeStep)
    turned = made(lambda w, h, x: (h.T, h), (H,))
    assert isinstance(turned, str), turned
    along = made(lambda w, h, x: (h * x[:, None], h), (H,), x=np.ones(H, np.float32))
    assert isinstance(along, NativeStep), along
    across = made(lambda w, h, x: (h * x[None], h), (H,), x=np.ones(H, np.float32))
    assert isinstance(across, str), across


def test_constants_are_part_of_a_kernel():
    """`str(jaxpr)` shows shapes of constants; the name of a kernel is of their values."""
    one, two = (made(lambda w, h, x, c=c: (h * c + x, h)) for c in (2.0, 3.0))
    assert one.text([False] * 2) != two.text([False] * 2)
    ones, twos = (
        made(lambda w, h, x, c=c: (h * c + x, h))
        for c in (np.ones(H, np.float32), W[0] * 2)
    )
    values = [np.asarray(step.extras([W])[0]) for step in (ones, twos)]
    assert (values[0] != values[1]).all()


def test_zeros_have_a_sign():
    step = made(lambda w, h, x: (h * 0.0, h * -0.0))
    assert {n.data for n in step.plan.nodes if n.name == "constant"} == {
        (np.float32(z).tobytes(),) for z in (0.0, -0.0)
    }


def test_floats_of_two_sizes():
    """Vectors of a loop are of as many lanes as one kind of number has."""
    with enable_x64(True):
        twice = lambda w, h, x: (h, h.astype(jnp.float64) @ w.astype(jnp.float64))
        assert made(twice) == "floats of two sizes"
        along = lambda w, h, x: (h, h.astype(jnp.float64) * 2)
        assert isinstance(made(along), NativeStep)


TABLE = np.arange(H, dtype=np.float32)
UNLIKE = {
    "another number": lambda x, y: (3.5 * x - y, x.sum(0)),
    "the sign of a zero": lambda x, y: (2.5 * x - y, x.sum(0) + -0.0),
    "another table": lambda x, y: (2.5 * x - y, (x + (TABLE + 1)).sum(0)),
    "operands changed over": lambda x, y: (y - 2.5 * x, x.sum(0)),
    "another axis": lambda x, y: (2.5 * x - y, x.sum(1)),
    "results changed over": lambda x, y: (x.sum(0), 2.5 * x - y),
    "another function": lambda x, y: (2.5 * x + y, x.sum(0)),
}
LIKE = {
    "the sign of a zero": lambda x, y: (2.5 * x - y, x.sum(0) + 0.0),
    "another table": lambda x, y: (2.5 * x - y, (x + TABLE).sum(0)),
}


def description(f, x=np.ones((H, H), np.float32), inner=False):
    """Of a function as it is traced now."""
    program = jax.make_jaxpr(jax.jit(lambda *a: f(*a)) if inner else lambda *a: f(*a))
    return described(flat(program(x, x)))


@pytest.mark.parametrize("name", UNLIKE)
def test_a_step_traced_anew_is_the_same_and_another_is_not(name):
    like = LIKE.get(name, lambda x, y: (2.5 * x - y, x.sum(0)))
    this, again = description(like), description(like, inner=True)
    assert this is not None
    assert this == again
    assert hash(this) == hash(again)
    assert this.program is not again.program
    assert this != description(UNLIKE[name])
    assert this != description(like, np.ones((H, H), np.float16))


def test_what_cannot_be_compared_is_like_nothing():
    eqn = Equation(neg_p, dict(of=[1]), [], [])
    assert described(Program([], [eqn], [])) is None
