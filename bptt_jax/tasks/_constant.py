"""What the simplest predictors cost: those that do not look at a sequence."""

from typing import Any

import numpy as np

from bptt_jax.tasks._padded import Data
from bptt_jax.tasks._sequences import Sequences
from bptt_jax.tasks._targets import LABELS, NUMBERS, TRUTHS
from bptt_jax.types import Objective


def baselines_of(
    data: Data, form: Objective, objective: Any, n_out: int, out: np.ndarray
) -> dict[str, float]:
    """What predictors cost that do not learn; refuses a part that counts for nothing."""
    parts = {"training": counted(data, ~out), "held-out": counted(data, out)}
    for name, (_, weights) in parts.items():
        if not weights.any():
            raise ValueError(f"weights: all of the {name} part are zero")
    if objective not in (None, form):
        return {}
    found = _constant(form, n_out, *parts.values())
    if data.targets is None and form is NUMBERS:
        found["last value"] = _last_value(data, out)
    return found


def counted(data: Data, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(values, weights)` of all that is compared in those sequences."""
    targets, weights = data.targets, data.weights
    weights = np.ones(len(members), np.float32) if weights is None else weights
    if isinstance(targets, np.ndarray):
        return targets[members], weights[members]
    rows = _rows(data, members)
    values = data.inputs if targets is None else targets
    steps = (
        weights.joined if isinstance(weights, Sequences) else values.over_steps(weights)
    )
    return values.joined[rows], steps[rows]


def _rows(data: Data, members: np.ndarray) -> np.ndarray:
    """The steps of those sequences that are compared with an output, bool `[M]`."""
    rows = data.inputs.over_steps(members)
    if data.targets is None:
        rows[data.inputs.begins] = False
    return rows


def _last_value(data: Data, out: np.ndarray) -> float:
    rows, joined = np.flatnonzero(_rows(data, out)), data.inputs.joined
    errors = ((joined[rows] - joined[rows - 1]) ** 2).sum(1, np.float64)
    return float(np.average(errors, weights=counted(data, out)[1]))


def _constant(
    form: Objective,
    n_out: int,
    train: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
) -> dict[str, float]:
    """Name -> mean loss on held-out data of the constant that is best in training.

    Args:
      form: what it is a loss of.
      n_out: outputs; of labels: classes.
      train, held_out: `(values, weights)`: labels `[n]` from 0 on, truths or numbers
        `[n, O]`; weights `[n]`.
    """
    values, weights = train
    weights = weights.astype(np.float64)
    if form is LABELS:
        shares = np.bincount(values, weights, n_out) / weights.sum()
        with np.errstate(divide="ignore"):
            losses = -np.log(shares)[held_out[0]]
        return {"class frequencies": _mean(losses, held_out[1])}
    mean = (values * weights[:, None]).sum(0) / weights.sum()
    if form is TRUTHS:
        with np.errstate(divide="ignore", invalid="ignore"):
            each = -np.where(held_out[0] > 0, held_out[0] * np.log(mean), 0)
            each -= np.where(held_out[0] < 1, (1 - held_out[0]) * np.log1p(-mean), 0)
        return {"frequencies": _mean(each.sum(1), held_out[1])}
    return {"mean": _mean(((held_out[0] - mean) ** 2).sum(1), held_out[1])}


def _mean(losses: np.ndarray, weights: np.ndarray) -> float:
    counted = weights > 0
    return float(np.average(losses[counted], weights=weights[counted]))
