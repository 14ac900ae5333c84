"""CPU devices: how many there are must be said before JAX starts."""

import contextlib

import jax

from bptt_jax._processes import cores


def use_cores(devices: int | None = None) -> None:
    """One CPU device for each core, or so many; in one of several processes one."""
    if jax.distributed.is_initialized():
        return
    with contextlib.suppress(RuntimeError):  # JAX has started already
        jax.config.update("jax_num_cpu_devices", devices or cores())
