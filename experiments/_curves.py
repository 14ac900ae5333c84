"""Trainings of a fixed length, with held-out scores on the way."""

import time
from collections.abc import Callable

import jax
import numpy as np
import optax

from bptt_jax import train


def adam(rate: float, updates: int, clip: float = 1.0) -> optax.GradientTransformation:
    """Adam on the gradient clipped at a norm; the rate goes to zero along a cosine."""
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.adam(optax.cosine_decay_schedule(rate, updates)),
    )


def trained(
    task, model, estimator, optimizer, score: Callable, *, updates: int, every: int,
    seed: int, unit: float = 1.0,
) -> dict:  # fmt: skip
    """Trains, with `score(params)` after every so many updates.

    Returns the scores and the last one, the mean training loss between them (times `unit`), the
    milliseconds of processor time of an update (the median dispatch, compiled before), the
    count of parameters and, where something was not finite, the update at which the
    training ended.
    """
    state = train.init(model, estimator, optimizer, task.train, jax.random.key(seed))
    advance = train.many_steps(estimator, optimizer, task.train.batch)
    found: dict = dict(updates=[], held_out=[], training=[], ended_at=None)
    found["parameters"] = sum(a.size for a in jax.tree.leaves(state.params))
    seconds = []
    for at in range(0, updates, every):
        items = task.train.read(at, every)
        began = time.process_time()
        state, metrics = jax.block_until_ready(advance(state, items))
        seconds.append(time.process_time() - began)
        if int(state.bad) >= 0:
            found["ended_at"] = int(state.bad)
            break
        found["updates"].append(at + every)
        found["held_out"].append(round(score(state.params), 4))
        found["training"].append(round(unit * float(np.mean(metrics["loss"])), 4))
    found["last"] = found["held_out"][-1] if found["held_out"] else None
    found["cpu_ms"] = round(1000 * float(np.median(seconds[1:] or seconds)) / every, 2)
    return found
