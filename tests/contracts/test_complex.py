"""Complex states and parameters: every exact unroll is `jax.grad` of the plain loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, layers, objectives, unrolls
from bptt_jax.types import Side
from support import tiers
from support.complex_cells import BY_HAND, BY_JAX
from support.gradients import (
    QUICK,
    Case,
    arguments_of,
    error,
    gradients,
    quick_jit,
    worst,
)
from support.members import Member
from support.reference import AS_REFERENCE

TOLERANCE = 1e-12
RELEASE = pytest.mark.release


def complex_inputs(key, T, batch_shape):
    return jax.random.normal(key, (T, *batch_shape, 3), jnp.complex128)


CELLS = {
    "by hand": BY_HAND,
    "by JAX": BY_JAX,
    "elman": cells.elman(3, 4, param_dtype=jnp.complex64),
    "lstm": cells.lstm(3, 4, param_dtype=jnp.complex64),
    "gru": cells.gru(3, 4, param_dtype=jnp.complex64),
    "learned carry": cells.learned_carry(BY_HAND),
}
UNROLLS = {
    "bptt": unrolls.bptt,
    "both_modes": unrolls.both_modes,
    "checkpointed": functools.partial(unrolls.checkpointed, slots=2),
    "truncated": functools.partial(unrolls.truncated, window=8, stride=4),
}
FLAT = Case(7, (2,), "both", (2,))

ONE_AND_ANOTHER = [
    "bptt",
    pytest.param("checkpointed", marks=pytest.mark.slow),
    *[pytest.param(u, marks=RELEASE) for u in ("both_modes", "truncated")],
]
"""For what is a layer's work, and no unroll's."""


@functools.cache
def arguments(name, case=FLAT):
    inputs = complex_inputs if name in ("elman", "lstm", "gru") else 3
    return arguments_of(Member(None, inputs), CELLS[name], case)


def plain_gradients(layer, at, unroll=unrolls.scan):
    return gradients(layer, at, unroll, compiler_options=AS_REFERENCE)


def ours(layer, at, unroll: str):
    """That of `bptt` as users compile it; of the others quickly."""
    options = None if unroll == "bptt" else QUICK
    return gradients(layer, at, UNROLLS[unroll], chunk=2, compiler_options=options)


@functools.cache
def wanted(name):
    found = plain_gradients(CELLS[name], arguments(name))
    complexes = [k for k, v in found.items() if np.iscomplexobj(v)]
    assert any("grad[0]" in k for k in complexes)
    assert all(np.abs(found[k].imag).max() > 1e-3 for k in complexes), name
    return found


@functools.cache
def of_real_inputs():
    at = arguments_of(Member(None), CELLS["lstm"], FLAT)
    return at, plain_gradients(CELLS["lstm"], at)


@pytest.mark.parametrize("unroll", ONE_AND_ANOTHER)
def test_real_inputs_of_complex_weights(unroll):
    """Their gradient is real: the real part of what comes back to the layer."""
    with jax.numpy_dtype_promotion("standard"):
        at, want = of_real_inputs()
        found = ours(CELLS["lstm"], at, unroll)
    assert found["grad[2]"].dtype == np.float64
    off, leaf = worst(found, want)
    assert off <= TOLERANCE, leaf


@pytest.mark.parametrize("name", ["by hand", "by JAX"])
def test_gradients_from_the_end(name):
    back = {u: unrolls.reverse(getattr(unrolls, u)) for u in ("bptt", "scan")}
    found = gradients(
        CELLS[name], arguments(name), back["bptt"], chunk=2, compiler_options=QUICK
    )
    want = plain_gradients(CELLS[name], arguments(name), back["scan"])
    off, leaf = worst(found, want)
    assert off <= TOLERANCE, leaf


@pytest.mark.parametrize("name", ["by hand", "by JAX"])
def test_tangents(name):
    """Forward mode is that of the plain loop."""
    params, carry, xs, side, _ = arguments(name)
    rng = np.random.default_rng(0)
    along = jax.tree.map(lambda a: a + rng.normal(size=a.shape), (params, carry))

    def tangents(unroll):
        f = lambda params, carry: unroll(CELLS[name], params, carry, xs, side)
        return jax.tree.leaves(jax.jvp(f, (params, carry), along)[1])

    both, plain = (quick_jit(lambda u=u: tangents(u))() for u in (
        unrolls.both_modes, unrolls.scan))  # fmt: skip
    pairs = zip(both, plain, strict=True)
    for found, want in pairs:
        assert np.abs(want).max() > 1e-3
        assert error(found, want) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "unroll"),
    [
        tiers.slow((name, unroll), unroll == "bptt" or name == "by hand")
        if unroll == "bptt" or name not in ("elman", "gru")  # as an LSTM is
        else pytest.param(name, unroll, marks=RELEASE)
        for name in CELLS
        for unroll in UNROLLS
    ],
)
def test_gradients_of_cells(name, unroll):
    """With masks (NaN in the padding), resets and a shorter stretch."""
    found = ours(CELLS[name], arguments(name), unroll)
    off, leaf = worst(found, wanted(name))
    assert off <= TOLERANCE, leaf


LAYERS = {
    "remat": layers.remat(layers.recurrent(BY_HAND)),
    "residual of a real stack": layers.stack(
        layers.dense(3, 3), layers.residual(layers.stack(
            layers.recurrent(BY_HAND), layers.dense(4, 3), layers.layer_norm(3))),
        layers.recurrent(BY_JAX),
    ),
    "complex layers": layers.stack(
        layers.dense(3, 4, param_dtype=jnp.complex64),
        layers.layer_norm(4),
        layers.recurrent(cells.elman(4, 3, param_dtype=jnp.complex64)),
        layers.dropout(0.3),
        layers.remat(layers.recurrent(BY_HAND)),
    ),
}  # fmt: skip


FEW = [("residual of a real stack", "bptt"), ("complex layers", "checkpointed")]
"""All layers, and both unrolls, once; `remat` of the cell is in the last, too."""


@functools.cache
def of_layer(name):
    """Arguments, and what the plain loop gives."""
    at = arguments_of(Member(None), LAYERS[name], FLAT)
    return at, plain_gradients(LAYERS[name], at)


@pytest.mark.parametrize(
    ("name", "unroll"),
    [
        tiers.slow((name, unroll), (name, unroll) in FEW)
        for name in LAYERS
        for unroll in ("bptt", "checkpointed")
    ],
)
def test_gradients_of_layers(name, unroll):
    with jax.numpy_dtype_promotion("standard"):  # real layers between complex ones
        at, want = of_layer(name)
        found = ours(LAYERS[name], at, unroll)
    off, leaf = worst(found, want)
    assert off <= TOLERANCE, leaf


@functools.cache
def of_a_loss():
    """The layer without the loss and with it, arguments, what the plain loop gives."""
    model = layers.recurrent(cells.elman(3, 4, param_dtype=jnp.complex64))
    layer = layers.with_loss(model, objectives.squared_error)
    rng = np.random.default_rng(0)

    def goals(key, T, batch_shape):
        del key
        parts = rng.normal(size=(2, T, *batch_shape, 4))
        return parts[0] + 1j * parts[1]

    at = arguments_of(Member(None, complex_inputs, targets=goals), layer, FLAT)
    return model, layer, at, plain_gradients(layer, at)


@pytest.mark.parametrize("unroll", ONE_AND_ANOTHER)
def test_gradient_of_a_loss_of_complex_outputs(unroll):
    _, layer, at, want = of_a_loss()
    found = ours(layer, at, unroll)
    off, leaf = worst(found, want)
    assert off <= TOLERANCE, leaf


def test_a_loss_of_complex_outputs_is_real():
    model, _, at, want = of_a_loss()
    assert want["out[1]"].dtype == np.float64
    ys = quick_jit(lambda *a: unrolls.scan(model, *a, at.side)[1])(*at[:3])
    apart = np.where(at.side.mask[..., None], ys - at.side.targets, 0)
    np.testing.assert_allclose(want["out[1]"], (abs(apart) ** 2).sum((1, 2)))


def test_gradient_is_that_of_differences_in_both_parts():
    """The convention itself: ∂L/∂x - i ∂L/∂y, computed in NumPy."""
    at = arguments("by hand", Case(4, (), "plain", (None,)))
    v = np.random.default_rng(0).normal(size=(4, 4))

    def loss(params):
        s, total = at.carry, 0.0
        for t, x in enumerate(at.xs):
            z = params["a"] * s + x @ params["b"]
            s = z / (1 + abs(z) ** 2)
            total += (v[t] * (params["c"] * s).real).sum()
        return total

    def of_jax(params):
        return (v * unrolls.bptt(BY_HAND, params, at.carry, at.xs)[1]).sum()

    grads = quick_jit(jax.grad(of_jax))(at.params)
    for name, a in at.params.items():
        for index in np.ndindex(a.shape):
            for unit, part in ((1e-6, np.real), (1e-6j, lambda d: -np.imag(d))):
                ends = []
                for sign in (1, -1):
                    moved = a.copy()
                    moved[index] += sign * unit
                    ends.append(loss({**at.params, name: moved}))
                slope = (ends[0] - ends[1]) / 2e-6
                assert abs(slope - part(grads[name][index])) < 1e-8, (name, index)


def test_states_of_complex64():
    at = arguments("by hand")
    half = jax.tree.map(
        lambda a: np.asarray(a, "F" if np.iscomplexobj(a) else "f")
        if np.asarray(a).dtype.kind in "fc" else a, at._replace(side=Side())[:3],
    )  # fmt: skip
    xs = np.nan_to_num(half[2])
    layer = layers.recurrent(BY_HAND)

    def loss(unroll, params):
        return (unroll(layer, params, half[1], xs)[1] ** 2).sum()

    got, want = (quick_jit(jax.grad(functools.partial(loss, u)))(half[0])
                 for u in (unrolls.bptt, unrolls.scan))  # fmt: skip
    for name in got:
        assert got[name].dtype == jnp.complex64
        assert error(got[name], want[name]) < 1e-5


def test_arithmetic_in_another_dtype_keeps_imaginary_parts():
    """`in_dtype` of a real dtype is the complex one that goes with it."""
    at = arguments("elman", Case(4, (2,), "plain", (None,)))
    cell = cells.in_dtype(CELLS["elman"], jnp.float32)
    carry = cell.init_carry(at.params, (2,))
    assert carry.dtype == jnp.complex64
    with jax.numpy_dtype_promotion("standard"):
        _, ys = unrolls.bptt(cell, at.params, carry, at.xs)
        _, want = unrolls.bptt(
            CELLS["elman"], at.params, jnp.zeros((2, 4), complex), at.xs
        )
    assert ys.dtype == jnp.complex64
    np.testing.assert_allclose(ys, want, rtol=1e-4)
