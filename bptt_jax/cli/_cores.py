"""CPU devices: how many there are must be said before JAX starts."""

import contextlib
import os

import jax


def use_cores(devices: int | None = None) -> None:
    """One CPU device for each core, or so many; in one of several processes one."""
    if jax.distributed.is_initialized():
        return
    if devices is None:
        affine = hasattr(os, "sched_getaffinity")
        devices = len(os.sched_getaffinity(0)) if affine else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):  # JAX has started already
        jax.config.update("jax_num_cpu_devices", devices)
