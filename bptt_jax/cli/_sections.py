"""`--bidirectional` and `--pool`: models that need the whole sequence."""

from collections.abc import Callable

import jax
import numpy as np

from bptt_jax import layers, models, unrolls, wholes
from bptt_jax.cli._settings import Settings
from bptt_jax.types import Cell, Layer, Sections, Task, Weighted, Whole

POOLS: dict[str, Callable[[int], Whole]] = {
    "last": lambda width: wholes.last(),
    "mean": lambda width: wholes.mean(),
    "attention": lambda width: wholes.attention_pool(width),
}


def asked(s: Settings) -> bool:
    return s.bidirectional or s.pool is not None


def sections_of(s: Settings, task: Task, make: Callable[[int, int], Cell]) -> Sections:
    """The cells of each layer in both directions or in one, what is made of all steps, and a
    readout.
    """
    _refuse(s, task)
    parts, width = [], s.embedding if task.tokens else task.n_in
    if task.tokens:
        parts.append(layers.embedding(task.n_in, s.embedding))
    for i in range(s.layers):
        cell = make(width, s.hidden)
        one = layers.remat(cell) if s.remat else layers.lift(cell)
        if s.bidirectional:
            top = i == s.layers - 1 and s.pool == "last"
            run = unrolls.bptt if s.unroll == "bptt" else unrolls.scan
            one = (wholes.ends if top else wholes.bidirectional)(one, unroll=run)
        parts.append(one)
        width = s.hidden * (1 + s.bidirectional)
        if s.dropout:
            parts.append(layers.dropout(s.dropout))
    if s.pool is not None and not (s.bidirectional and s.pool == "last"):
        parts.append(POOLS[s.pool](width))
    return models.sections(*_joined([*parts, layers.dense(width, task.n_out)]))


def _joined(parts: list) -> list:
    """Layers that stand in a row as one stack: what is between them is not stored."""
    found: list = []
    for part in parts:
        if isinstance(part, Whole):
            found.append(part)
        elif found and isinstance(found[-1], list):
            found[-1].append(part)
        else:
            found.append([part])
    return [one if isinstance(one, Whole) else _stacked(one) for one in found]


def _stacked(parts: list) -> Layer:
    return parts[0] if len(parts) == 1 else layers.stack(*parts)


def _refuse(s: Settings, task: Task) -> None:
    option = "--bidirectional" if s.bidirectional else f"--pool {s.pool}"
    if task.text is not None or task.stateful:
        raise ValueError(
            f"{option}: it needs the whole sequence, and a text goes on from batch to batch"
        )
    if s.pool is not None and not _one_target(task):
        raise ValueError(
            f"--pool {s.pool}: each step of this task has a target of its own"
        )


def _one_target(task: Task) -> bool:
    """Whether a sequence is judged at one step, as its first batch says."""
    item = jax.tree.map(lambda a: a[0], task.train.read(0, 1))
    targets = task.train.batch(item, jax.random.key(0)).side.targets
    if not isinstance(targets, Weighted):
        return False
    return bool(((np.asarray(targets.weights) != 0).sum(0) <= 1).all())
