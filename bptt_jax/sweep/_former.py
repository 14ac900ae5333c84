"""A record that is now one with that of `train.run`."""

from collections.abc import Callable

from bptt_jax import _deprecated, progress


def Progress(
    message: Callable = progress.silent.message,
    advanced: Callable = progress.silent.advanced,
    interrupted: Callable = progress.silent.interrupted,
) -> progress.Progress:
    """Former name of `progress.Progress`, whose functions are given by their names."""
    _deprecated.warn("sweep.Progress", "progress.Progress", gone="0.3.0")
    return progress.Progress(
        message=message, advanced=advanced, interrupted=interrupted
    )
