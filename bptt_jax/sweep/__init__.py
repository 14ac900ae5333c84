"""Many trainings as one program: configurations mapped over lanes, devices and hosts.

A `Space` is a table of configurations; `run` trains them all, frozen where they diverge,
resumed where they were stopped, and returns a tidy table.
"""

from bptt_jax.progress import Status
from bptt_jax.sweep._former import Progress
from bptt_jax.sweep._halving import Halving, halving
from bptt_jax.sweep._results import Best, Result, load, parameters, read_config
from bptt_jax.sweep._run import run
from bptt_jax.sweep._space import (
    Space,
    choice,
    grid,
    groups,
    integers,
    log_uniform,
    product,
    random,
    static,
    uniform,
    zip,
)
from bptt_jax.sweep._trainer import trainer
from bptt_jax.sweep._training import Training, training

__all__ = [
    "Best",
    "Halving",
    "Progress",
    "Result",
    "Space",
    "Status",
    "Training",
    "choice",
    "grid",
    "groups",
    "halving",
    "integers",
    "load",
    "log_uniform",
    "parameters",
    "product",
    "random",
    "read_config",
    "run",
    "static",
    "trainer",
    "training",
    "uniform",
    "zip",
]
