"""Several processes that run one program (`jax.distributed`), and how they agree.

All functions do their work in one process, too. Each that exchanges something waits for it:
collectives that nobody waits for have been seen to hang.
"""

import functools
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from bptt_jax import _pytrees as trees


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int:
    """Bytes of the machine's memory; where the system does not say, no bound."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**63


def first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return jax.process_index() == 0


def telling(progress: Any) -> Callable[[str], None]:
    """How to say what the caller must know, once, by the first process.

    `progress.message`, or a warning where that is the default, which nobody hears.
    """
    if not first():
        return lambda text: None
    if progress.message is not progress._field_defaults["message"]:
        return progress.message
    return _warn


def _warn(text: str) -> None:
    """At the caller's line, and each time: cells of a notebook are run again."""
    frame = sys._getframe()
    while frame.f_back and _ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    at = frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__")
    warnings.warn_explicit(text, UserWarning, *at)


def _ours(module: str) -> bool:
    return module.partition(".")[0] == __package__


def together(name: str) -> None:
    """All processes have come here before one goes on."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def gathered(tree: Any) -> Any:
    """Arrays over all processes' devices, whole, on the host of every process."""
    leaves, structure = jax.tree.flatten(tree)
    far = [i for i, a in enumerate(leaves) if not getattr(a, "is_fully_addressable", 1)]
    if far:  # one program for all of them, compiled once
        whole = _replicate(leaves[far[0]].sharding.mesh)([leaves[i] for i in far])
        for i, a in zip(far, whole, strict=True):
            leaves[i] = a
    return structure.unflatten([np.asarray(a) for a in leaves])


@functools.cache
def _replicate(mesh: Mesh) -> Callable:
    return jax.jit(
        lambda arrays: arrays, out_shardings=NamedSharding(mesh, PartitionSpec())
    )


def anyone(*flags: bool) -> list[bool]:
    """For each flag, whether it is set in any process: they go on alike."""
    if jax.process_count() == 1:
        return list(flags)
    from jax.experimental import multihost_utils

    each = multihost_utils.process_allgather(np.array(flags))
    return np.any(each, axis=0).tolist()


def axis_of(mesh: Any) -> str:
    """The name of a mesh's one axis; anything else is refused."""
    if not isinstance(mesh, Mesh | AbstractMesh):
        kind = type(mesh).__name__
        raise TypeError(f"mesh: expected a jax.sharding.Mesh of one axis, got {kind}")
    if len(mesh.axis_names) != 1:
        raise ValueError(f"mesh: expected one axis, got {mesh.axis_names}")
    return mesh.axis_names[0]


def auto(mesh: Any) -> Any:
    """The mesh with axes that arrays need not be typed for (`jax.make_mesh` makes others)."""
    return Mesh(mesh.devices, mesh.axis_names) if isinstance(mesh, Mesh) else mesh


def everywhere(tree: Any, mesh: Mesh) -> Any:
    """Arrays that all processes have alike, on all devices of the mesh."""
    sharding = NamedSharding(auto(mesh), PartitionSpec())

    def put(a):
        if trees.is_key(a):
            return jax.jit(jax.random.wrap_key_data)(put(jax.random.key_data(a)))
        host = np.asarray(a)
        return jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])

    return jax.tree.map(put, tree)
