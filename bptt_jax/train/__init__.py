"""Training: one pure step, and the loop that runs, shows, saves and resumes it."""

from bptt_jax.train._checkpoint import Best, Checkpoints
from bptt_jax.train._clipping import clip_by_global_norm
from bptt_jax.train._fingerprint import digest, fingerprint
from bptt_jax.train._loop import NonFiniteError, Plan, Progress, Run, run
from bptt_jax.train._metrics import MetricsFile, missing
from bptt_jax.train._step import (
    Sums,
    TrainState,
    evaluator,
    init,
    many_steps,
    step,
    timings,
    update,
)

__all__ = [
    "Best",
    "Checkpoints",
    "clip_by_global_norm",
    "digest",
    "MetricsFile",
    "NonFiniteError",
    "Plan",
    "Progress",
    "Run",
    "Sums",
    "TrainState",
    "evaluator",
    "fingerprint",
    "init",
    "many_steps",
    "missing",
    "run",
    "step",
    "timings",
    "update",
]
