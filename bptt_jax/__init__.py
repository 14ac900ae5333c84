"""bptt_jax: backpropagation through time, derived by hand and checked.

A cell says how one step moves; a layer moves a stretch of time and brings cotangents
back through it; an unroll runs a layer through all of time and fixes how its gradient
is computed. Everything else is built on those three.

    cells        one recurrent step each, with its hand-derived derivative
    loops        how the two recurrences of a stretch of time are run
    layers       a cell over a stretch of time, stacks, dense, dropout, losses, remat
    unrolls      scan (the reference), bptt, both_modes, checkpointed, truncated
    objectives   losses over time
    models       embedding → layers → readout, sections
    wholes       functions of a whole sequence: both directions, pools, attention
    sequences    burn-in of stored states, episodes in a rollout, packed rows
    estimators   ways to get a gradient: exact, truncated stream
    recipes      how a model is made, as data
    data         data sets from files: CSV, Parquet, NumPy's, the archives' .ts
    tasks        data sets as batches; synthetic problems, text and digits
    train        one training step, and the loop that shows, saves and resumes
    sweep        many trainings as one program
    progress     what these loops tell: a terminal, a notebook, TensorBoard, your own
    verify       is a gradient right? for your own cells, too
    diagnose     the gradient through time, by lag, as spectra; truncation that adapts
    plots        figures from arrays
    export       files that run without this package
    interop      other libraries: flax's RNN by its import, weights both ways

`cells`, `loops`, `layers` and `unrolls` are here at once, the other rooms load on first use.
"""

import importlib

# _jax is the first: an older JAX is refused there, by name
from bptt_jax import _jax, cells, layers, loops, unrolls  # noqa: F401
from bptt_jax.types import (
    Batch,
    Cell,
    Estimator,
    Gradient,
    InContext,
    Layer,
    Side,
    StepVJP,
    Stream,
    Task,
    Weighted,
)  # fmt: skip

__version__ = "0.1.0"

_ROOMS = (
    "data", "diagnose", "estimators", "export", "interop", "models", "objectives",
    "plots", "progress", "recipes", "sequences", "sweep", "tasks", "train", "verify", "wholes",
)  # fmt: skip

__all__ = [
    "Batch", "Cell", "Estimator", "Gradient", "InContext", "Layer", "Side", "StepVJP",
    "Stream", "Task", "Weighted", "cells", "layers", "load", "loops", "unrolls", *_ROOMS,
]  # fmt: skip


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"bptt_jax.{name}")
    if name == "load":
        return importlib.import_module("bptt_jax.train").load
    raise AttributeError(f"module 'bptt_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
