"""`verify.check` of cells with complex states: a right one passes, wrong ones do not."""

import jax
import jax.numpy as jnp
import pytest

from bptt_jax import cells, verify
from support.changed import with_parts
from support.complex_cells import BY_HAND, BY_JAX, backward, contract

ONE = dict(lengths=(3,), chunks=(2,), batch_shapes=((2,),), sides=("plain",))
ELMAN = cells.elman(3, 4, param_dtype=jnp.complex64)


def reference(params, carry, xs, side):
    """The cell in NumPy."""
    ys, s = [], carry
    for x in xs:
        z = params["a"] * s + x @ params["b"]
        s = z / (1 + z.real**2 + z.imag**2)
        ys.append((params["c"] * s).real)
    return s, jnp.stack(ys)


@pytest.mark.parametrize("name", ["by hand", "by JAX", "elman"])
def test_a_right_one_passes(name):
    cell = {"by hand": BY_HAND, "by JAX": BY_JAX, "elman": ELMAN}[name]
    report = verify.check(cell, 3, **ONE | dict(sides=("plain", "both")))
    assert report.wrong == ()
    for row in report.rows:
        assert row.largest > 1e-2
        assert row.error < 1e-7
        assert row.hand_truth == row.hand_truth  # differences there were


def test_a_right_one_passes_against_numpy():
    report = verify.check(BY_HAND, 3, reference=reference, **ONE)
    assert report.wrong == ()


def of_backward(edit):
    return dict(backward=lambda p, coeffs, *d: backward(p, *edit(coeffs, *d)))


def of_gradients(edit):
    def wrong(*arguments):
        d_params, d_xs = contract(*arguments)
        return edit(d_params), d_xs

    return dict(contract=wrong)


def conjugated(leaf):
    return of_gradients(lambda d: {**d, leaf: d[leaf].conj()})


def without_radial_part(p, coeffs, d_s, d_y):
    z, g, after = coeffs
    d_s = d_s + p["c"] * d_y.astype(d_s.dtype)
    dz = g.astype(z.dtype) * d_s
    return p["a"] * dz, (dz, d_y)


def as_of_a_holomorphic_function(p, coeffs, d_s, d_y):
    """d(z g)/dz · d, as if g had a complex derivative."""
    z, g, _ = coeffs
    d_s = d_s + p["c"] * d_y.astype(d_s.dtype)
    slope = g.astype(z.dtype) - (g**2).astype(z.dtype) * z * z.conj()
    dz = slope * d_s
    return p["a"] * dz, (dz, d_y)


def with_conjugates(p, coeffs, d_s, d_y):
    """The convention of other libraries, ∂L/∂x + i ∂L/∂y, inside of JAX's."""
    d_before, (dz, d_y) = backward(p, coeffs, d_s.conj(), d_y)
    return d_before.conj(), (dz.conj(), d_y)


ALL = {"params['a']", "params['b']", "params['c']", "carry", "xs"}
MUTANTS = {
    "imaginary part of the state dropped": (
        of_backward(lambda co, d_s, d_y: (co, d_s.real + 0j, d_y)), ALL - {"params['c']"},
    ),
    "cotangent conjugated": (dict(backward=with_conjugates), ALL - {"params['c']"}),
    "radial part forgotten": (dict(backward=without_radial_part), ALL - {"params['c']"}),
    "derivative of a holomorphic function": (
        dict(backward=as_of_a_holomorphic_function), ALL - {"params['c']"},
    ),
    "z for its conjugate": (
        of_backward(lambda co, *d: ((co[0].conj(), *co[1:]), *d)), ALL - {"params['c']"},
    ),
    "gradient of a conjugated": (conjugated("a"), {"params['a']"}),
    "gradient of b conjugated": (conjugated("b"), {"params['b']"}),
    "imaginary part of a gradient dropped": (
        of_gradients(lambda d: {**d, "c": d["c"].real + 0j}), {"params['c']"},
    ),
    "imaginary part of a gradient a millionth off": (
        of_gradients(lambda d: {**d, "c": d["c"] + 1e-6j * d["c"].imag}), {"params['c']"},
    ),
    "off by 57": (of_gradients(lambda d: {**d, "b": d["b"] + 57j}), {"params['b']"}),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_one_is_refused_and_its_leaves_named(name):
    parts, leaves = MUTANTS[name]
    wrong = with_parts(BY_HAND, **parts)
    with pytest.raises(verify.GradientError, match="hand-derived") as caught:
        verify.check(wrong, 3, **ONE)
    report = caught.value.report
    assert {row.leaf for row in report.wrong if row.wrong != "jax.grad"} == leaves


def test_padding_of_integers_is_not_read_either():
    """A step that looks at a masked symbol is found."""

    def step(p, h, x):
        seen = (x < 0) | (x > 4)  # what a table would refuse
        h = jnp.tanh(h + p["w"] * jnp.where(seen, jnp.nan, x)[..., None])
        return h, h

    def init(key):
        return dict(w=jax.random.normal(key, (4,)))

    def init_carry(p, batch_shape):
        return jnp.zeros((*batch_shape, 4), p["w"].dtype)

    def symbols(key, T, batch_shape):
        return jax.random.randint(key, (T, *batch_shape), 0, 5)

    cell = cells.from_step(step, init, init_carry)
    report = verify.check(cell, symbols, **ONE | dict(sides=("mask",)))
    assert report.wrong == ()  # masked symbols are zeros before a step sees them
