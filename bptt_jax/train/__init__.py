"""Training: one pure update, and the loop that runs, shows, saves and resumes it.

What is imported as itself is for the other rooms and promised to nobody else.
"""

from bptt_jax import _deprecated
from bptt_jax.progress import Progress
from bptt_jax.train._about import about as about
from bptt_jax.train._about import described as described
from bptt_jax.train._about import has_data as has_data
from bptt_jax.train._checkpoint import Best, Checkpoints
from bptt_jax.train._clipping import clip_by_global_norm
from bptt_jax.train._evaluate import evaluate, evaluation, figures
from bptt_jax.train._fingerprint import digest, fingerprint
from bptt_jax.train._load import found as found
from bptt_jax.train._load import load
from bptt_jax.train._load import record as record
from bptt_jax.train._loop import NonFiniteError, run
from bptt_jax.train._metrics import MetricsFile, missing
from bptt_jax.train._options import RunOptions
from bptt_jax.train._run import Run
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
    "Progress",
    "Run",
    "RunOptions",
    "Sums",
    "TrainState",
    "evaluate",
    "evaluation",
    "evaluator",
    "figures",
    "fingerprint",
    "init",
    "load",
    "many_steps",
    "missing",
    "run",
    "step",
    "timings",
    "update",
]

__getattr__ = _deprecated.names(__name__, {"Plan": "RunOptions"}, gone="0.3.0")
