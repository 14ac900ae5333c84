"""Trainings with fresh data that end where the task is solved, one after another."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _results import Results

from bptt_jax import layers, train
from bptt_jax.types import Cell, Estimator, Layer, Task


@functools.cache
def symbols(
    n: int, cell: Cell, n_hidden: int, n_out: int, readout_init: Callable | None = None
) -> Layer:
    """Symbols as unit vectors, a cell, a linear readout: the papers' model."""
    one_hot = layers.time_distributed(
        lambda key: (), lambda params, tokens: jax.nn.one_hot(tokens, n)
    )
    options = {} if readout_init is None else dict(kernel_init=readout_init)
    readout = layers.dense(n_hidden, n_out, **options)
    return layers.stack(one_hot, layers.recurrent(cell), readout)


def wrong(ys, targets):
    """1 where the most likely class is not the target: an objective to measure with."""
    return (ys.argmax(-1) != targets).astype(jnp.float32)


def held_out(model: Layer, task: Task, objective: Callable, batches: int | None = None):
    """`(params) -> mean of the objective` over the first held-out batches; None: all."""
    sums = train.evaluator(model, objective, task.held_out.batch, task.stateful)
    items = task.held_out.read(0, batches or task.held_out.length)

    def measure(params) -> float:
        found = sums(params, None, items)
        return float(found.losses / found.steps)

    return measure


def trained(
    task: Task,
    model: Layer,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    measure: Callable,
    *,
    updates: int,
    every: int,
    seed: int,
    solved: float,
) -> dict[str, Any]:
    """Trains until the measure is below `solved`, a number is not finite, or to the end.

    Returns:
      `curve`: the measure after every `every` updates, as far as training went;
      `solved_at`: updates, None where it was not; `diverged_at`: likewise.
    """
    advance = train.many_steps(estimator, optimizer, task.train.batch)
    state = train.init(model, estimator, optimizer, task.train, jax.random.key(seed))
    curve: list[float] = []
    for at in range(0, updates, every):
        state, _ = advance(state, task.train.read(at, every))
        curve.append(float(f"{measure(state.params):.4g}"))
        bad = int(state.bad)
        if bad >= 0 or curve[-1] < solved:
            break
    done = every * len(curve)
    return dict(
        curve=curve,
        solved_at=done if curve[-1] < solved else None,
        diverged_at=bad if bad >= 0 else None,
    )


def held(runs: Iterable[dict], n: int) -> np.ndarray:
    """Curves as `[seeds, n]`; one that ended goes on at its last value."""
    return np.array(
        [r["curve"] + r["curve"][-1:] * (n - len(r["curve"])) for r in runs]
    )


def share_solved(runs: Iterable[dict]) -> float:
    return float(np.mean([r["solved_at"] is not None for r in runs]))


def by_seed(
    results: Results,
    names: Iterable,
    lengths: Iterable,
    seeds: Iterable,
    train: Callable,
) -> dict[tuple, list[dict]]:
    """`train(name, T, seed)` for all of them, each a part: `(name, T) -> runs`."""
    return {
        (name, T): [
            results.part(
                f"{name}, T = {T}, seed {seed}",
                functools.partial(train, name, T, seed),
                "solved after {solved_at}",
            )
            for seed in seeds
        ]
        for name in names
        for T in lengths
    }


def shares_solved(found: dict[tuple, list[dict]]) -> dict[str, dict[int, float]]:
    """Of `by_seed`: name -> T -> share of the seeds."""
    shares: dict = {}
    for (name, T), runs in found.items():
        shares.setdefault(name, {})[T] = share_solved(runs)
    return shares
