"""`diagnose.bias` against NumPy, and what theory says of some estimators."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import (
    Batch,
    Estimator,
    Gradient,
    Side,
    cells,
    diagnose,
    estimators,
    layers,
    objectives,
    unrolls,
)
from support.gradients import initial, quick_jit

MODEL = layers.recurrent(cells.elman(2, 5, param_dtype=jnp.float64))
EXACT = estimators.exact(MODEL, objectives.squared_error)
KEY = jax.random.key(0)


@functools.cache
def setting():
    rng = np.random.default_rng(0)
    xs, targets = rng.normal(size=(12, 3, 2)), rng.normal(size=(12, 3, 5))
    return initial(MODEL, (0, 1)), Batch(xs, Side(targets=targets))


def biases(*estimators, **options):
    """Of each beside the exact one, of one program."""
    at = *setting(), KEY
    return quick_jit(
        lambda: [diagnose.bias(e, EXACT, *at, **options) for e in estimators]
    )()


def of(unroll, **options):
    unroll = functools.partial(unroll, **options)
    return estimators.exact(MODEL, objectives.squared_error, unroll=unroll)


def test_the_exact_gradient_has_none():
    (found,) = biases(of(unrolls.scan))
    np.testing.assert_allclose(found, (1, 0, 1), atol=1e-5)


def test_figures_are_those_of_numpy():
    params, batch = setting()
    estimator = of(unrolls.truncated, window=2)
    found = diagnose.bias(estimator, EXACT, params, batch, KEY)
    g, e = (
        np.concatenate([np.ravel(a) for a in jax.tree.leaves(x.grad(params, (), batch, KEY)[1])])
        for x in (estimator, EXACT)
    )  # fmt: skip
    sizes = np.linalg.norm(g), np.linalg.norm(e)
    want = (
        g @ e / sizes[0] / sizes[1],
        np.linalg.norm(g - e) / sizes[1],
        sizes[0] / sizes[1],
    )
    np.testing.assert_allclose(found, want, rtol=1e-5)


def constant(value):
    """An estimator whose gradient is a number, whatever it is asked."""

    def grad(params, state, batch, key):
        del batch, key
        grads = jax.tree.map(lambda a: jnp.full_like(a, value), params)
        return Gradient(jnp.zeros(()), grads, state, jnp.ones(()), {})

    return Estimator(lambda params, batch: (), grad)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("float16", 300),
        ("float32", 1e25),
        ("float32", 1e-25),
        ("complex64", 3 + 4j),
        ("complex64", 3e25j),
    ],
)
def test_figures_where_squares_leave_the_range(dtype, size):
    params = [np.zeros(90, dtype), np.zeros(10, dtype)]
    for factor, cosine in ((0.5, 1), (-2, -1)):
        pair = constant(factor * size), constant(size)
        found = diagnose.bias(*pair, params, None, KEY)
        want = cosine, abs(factor - 1), abs(factor)
        np.testing.assert_allclose(found, want, rtol=2e-3)
        assert all(jnp.isrealobj(a) for a in found)
    if dtype == "complex64":  # a quarter turn
        found = diagnose.bias(constant(1j * size), constant(size), params, None, KEY)
        np.testing.assert_allclose(found, (0, np.sqrt(2), 1), atol=1e-6)


def test_longer_windows_are_nearer():
    cut = [of(unrolls.truncated, window=w) for w in (1, 4, 12)]
    errors = [float(found.relative_error) for found in biases(*cut)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5 < 1e-2 < errors[1]


def test_a_scaled_gradient_and_one_of_the_other_sign():
    def scaled(by):
        def grad(params, state, batch, key):
            found = EXACT.grad(params, state, batch, key)
            return found._replace(grads=jax.tree.map(lambda a: by * a, found.grads))

        return Estimator(EXACT.init, grad)

    twice, back = biases(scaled(2.0), scaled(-1.0))
    np.testing.assert_allclose(twice, (1, 1, 2), rtol=1e-5)
    np.testing.assert_allclose(back, (-1, 2, 1), rtol=1e-5)


def test_the_error_of_an_unbiased_estimator_falls_with_draws():
    hooked = layers.recurrent(
        cells.elman(2, 5, param_dtype=jnp.float64), on_d_carry=unrolls.times
    )
    random = estimators.exact(
        hooked,
        objectives.squared_error,
        unroll=functools.partial(unrolls.randomly_truncated, mean_length=4),
    )
    few, many = (float(biases(random, draws=n)[0].relative_error) for n in (10, 1000))
    assert many < 0.5 * few
    (short,) = biases(of(unrolls.truncated, window=4), draws=2)
    assert many < 0.5 * float(short.relative_error)


def test_draws_that_make_no_sense_are_named():
    with pytest.raises(ValueError, match="draws: expected at least 1"):
        diagnose.bias(EXACT, EXACT, *setting(), KEY, draws=0)
