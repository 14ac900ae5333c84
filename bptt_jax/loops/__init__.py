"""Loops: how the two recurrences of a stretch of time are run. See `types.Loop`."""

from bptt_jax.loops._first import first_of
from bptt_jax.loops._step_by_step import step_by_step

__all__ = ["first_of", "step_by_step"]
