"""Arrays of a sweep on disk: safetensors files, whole or not there, and checked."""

import pathlib
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bptt_jax import _files
from bptt_jax import _pytrees as trees
from bptt_jax.train import digest


def save(path: pathlib.Path, tree: Any, **record: Any) -> None:
    """Writes the leaves of `tree`, whole or not at all, and numbers beside them."""
    host = jax.tree.map(_on_host, tree)
    named = {
        jax.tree_util.keystr(at) or "value": np.asarray(a, order="C")
        for at, a in jax.tree_util.tree_leaves_with_path(host)
    }
    arrays, about = _files.apart(named)
    about |= {k: str(v) for k, v in record.items()} | {"sha256": digest(host)}
    _files.replace(path, lambda new: save_file(arrays, new, metadata=about))


def load(path: pathlib.Path, like: Any) -> tuple[Any, dict[str, str]]:
    """The tree that `save` wrote, in NumPy arrays (keys as keys), and the numbers.

    Raises:
      ValueError: the file is damaged, or holds another tree.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    try:
        with safe_open(path, "numpy") as file:
            names = [jax.tree_util.keystr(at) or "value" for at, _ in leaves]
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            arrays, about = _files.together(arrays, file.metadata())
            if set(names) != set(arrays):
                raise ValueError("it holds other arrays")
            found = [arrays[name] for name in names]
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    host = structure.unflatten(found)
    if about.pop("sha256", None) != digest(host):
        raise ValueError(f"{path} is damaged: its arrays are not those that were saved")
    for (at, want), got in zip(leaves, found, strict=True):
        want = jax.eval_shape(jax.random.key_data, want) if trees.is_key(want) else want
        if (want.shape, want.dtype) != (got.shape, got.dtype):
            raise ValueError(
                f"{path}{jax.tree_util.keystr(at)}: expected {want.dtype}"
                f"{list(want.shape)}, got {got.dtype}{list(got.shape)}"
            )
    return host, about


def record(path: pathlib.Path) -> dict[str, str]:
    """The numbers that were saved beside the arrays."""
    try:
        with safe_open(path, "numpy") as file:
            return dict(file.metadata())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


@jax.jit
def plain(tree: Any) -> Any:
    """Keys as the numbers they are."""
    return jax.tree.map(
        lambda a: jax.random.key_data(a) if trees.is_key(a) else a, tree
    )


def as_like(like: Any, arrays: Any) -> Any:
    """Arrays of the kinds of `like`: the numbers of keys as keys again."""
    return jax.tree.map(
        lambda want, a: _as_key(a) if trees.is_key(want) else a, like, arrays
    )


_as_key = jax.jit(jax.random.wrap_key_data)


def _on_host(a: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(a) if trees.is_key(a) else a)
