"""The best parameters by name, and what they are parameters of, in one file."""

import json
import os

import jax
import numpy as np

from bptt_jax.interop import files
from bptt_jax.train import Run, about


def safetensors(run: Run, out: str | os.PathLike[str]) -> None:
    """Writes the best parameters of a run, by their places in the model, "0/w_x".

    The file's metadata have, as JSON under "bptt_jax", what `run.json` says of the model (how
    it is made), and of inputs and outputs: scales, classes, units.

    Args:
      run: of `train.run` or `train.load`.
      out: a new file; nothing is overwritten.

    Raises:
      ValueError: there is something of that name already, or no such folder.
    """
    metadata = {"bptt_jax": json.dumps(about(run.task, run.model))}
    files.write(out, named(run.params), metadata)


def named(params) -> dict[str, np.ndarray]:
    """Leaves by their places.

    >>> sorted(named([{"w": np.zeros(2)}, np.ones(1)]))
    ['0/w', '1']
    """
    return {
        "/".join(map(_key, path)): np.asarray(a)
        for path, a in jax.tree_util.tree_leaves_with_path(params)
    }


def _key(key) -> str:
    return str(next(getattr(key, n) for n in ("key", "idx", "name") if hasattr(key, n)))
