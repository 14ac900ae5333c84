"""Loops: how a stretch of time is run, each way. See `types.Loop`."""

from bptt_jax.loops._first import first_of
from bptt_jax.loops._first import first_of_shapes as first_of_shapes
from bptt_jax.loops._first import preferred as preferred
from bptt_jax.loops._graph_options import graph_options
from bptt_jax.loops._native import native
from bptt_jax.loops._pallas import pallas
from bptt_jax.loops._step_by_step import recurrence as recurrence
from bptt_jax.loops._step_by_step import step_by_step

__all__ = ["first_of", "graph_options", "native", "pallas", "step_by_step"]
