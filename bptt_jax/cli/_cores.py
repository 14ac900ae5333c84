"""CPU devices: how many there are must be said before JAX starts."""

import os
import sys

import jax

from bptt_jax._processes import cores


def use_cores(devices: int | None = None) -> None:
    """One CPU device for each core, or so many; in one of several processes one.

    Where the user has said how many (`JAX_NUM_CPU_DEVICES`, `XLA_FLAGS`), that stays.
    """
    if jax.distributed.is_initialized() or _said():
        return
    n = devices or cores()
    try:
        jax.config.update("jax_num_cpu_devices", n)
    except RuntimeError:  # JAX has started already
        if jax.default_backend() == "cpu" and (there := jax.device_count()) < n:
            print(
                f"bptt-jax: JAX had started before, with {there} of {n} CPU devices",
                file=sys.stderr,
            )


def _said() -> bool:
    flags = os.environ.get("XLA_FLAGS", "")
    return (
        "JAX_NUM_CPU_DEVICES" in os.environ
        or "xla_force_host_platform_device_count" in flags
    )
