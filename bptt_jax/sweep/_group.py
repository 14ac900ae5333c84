"""A group of configurations in the hands of its program, from evaluation to evaluation."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from bptt_jax import _pytrees as trees
from bptt_jax._processes import gathered
from bptt_jax.sweep import _store
from bptt_jax.sweep._program import Program, add, count, spread
from bptt_jax.sweep._training import Lane, Training, over_real

PIECE = 64
"""Steps in one call of a program: often enough to be told, seldom enough to be free."""


class Group(NamedTuple):
    """training, program: what runs; config: its numbers, `[G]`; every: steps between
    evaluations.
    """

    training: Training
    program: Program
    config: dict[str, Array]
    every: int


def length(step: int, until: int, every: int) -> int:
    """Steps from one to the next evaluation."""
    return min(every - step % every, until - step)


def train(
    group: Group, lanes: Lane, first: int, n: int
) -> tuple[Lane, dict[str, Array]]:
    """n steps, at most `PIECE` a call; the metrics' means over them."""
    training, made = group.training, group.program
    sums: dict[str, Any] = {}
    for at in range(0, n, PIECE):
        some = min(PIECE, n - at)
        items = _padded(training.read(first + at, some), min(PIECE, group.every))
        lanes, means = made.advance(group.config, lanes, items, count(some))
        if n <= PIECE:
            return lanes, means
        share = np.float32(some / n)
        sums = add(sums or dict.fromkeys(means, np.float32(0)), means, share)
    return lanes, sums


def evaluated(
    group: Group, lanes: Lane, means: dict[str, Array], n: int
) -> tuple[list[dict[str, Any]], list[int]]:
    """Of the first n configurations the figures of a row, and where they diverged."""
    training = group.training
    found = group.program.measure(group.config, lanes, training.held_out)
    told, found, diverged = gathered((means, found, lanes.diverged_at))
    told = over_real(told)
    each = [_at(told, j) | training.figures(_at(found, j)) for j in range(n)]
    return each, [int(at) for at in diverged[:n]]


def from_the_first(group: Group, step: int) -> Lane:
    """What is there after so many steps: a lane's numbers are its own."""
    lanes, at = group.program.begin(group.config), 0
    while at < step:
        n = length(at, step, group.every)
        lanes, _ = train(group, lanes, at, n)
        at += n
    return lanes


def placed(group: Group, host: Any) -> Lane:
    """Lanes on the host, `[G, ...]`, where their program has them."""
    like = like_of(group)
    arrays = jax.tree.map(lambda a: spread(np.asarray(a), group.program.mesh), host)
    return _store.as_like(like, arrays)


def like_of(group: Group) -> Any:
    """The lanes' shapes."""
    return jax.eval_shape(group.program.begin, group.config)


def stacked(each: list[Any]) -> Any:
    """Lanes one by one as those of a group."""
    return jax.tree.map(lambda *a: np.stack(a), *each)


def on_host(lanes: Lane) -> Any:
    return gathered(_store.plain(lanes))


def one_of(host: Any, j: int) -> Any:
    return jax.tree.map(lambda a: a[j], host)


def left(host: Any, j: int, last: bool) -> Any:
    """What is needed of the j-th after a rung; after the last its parameters alone."""
    one = one_of(host, j)
    return params_of(one.state) if last else one


def params_of(state: Any) -> Any:
    """The parameters in a training's state, where it has some apart."""
    state = getattr(state, "state", state)  # of a training given as one function
    return getattr(state, "params", state)


def _padded(items: Any, n: int) -> Any:
    """Items `[n, ...]`, the first again in the place of those that are not needed."""
    if n == trees.length(items):
        return items
    return jax.tree.map(
        lambda a: np.concatenate([a, np.repeat(a[:1], n - len(a), 0)]), items
    )


def _at(tree: Any, j: int) -> Any:
    """Of the j-th configuration of a group, numbers of Python."""
    return jax.tree.map(lambda a: np.asarray(a)[j].item(), tree)
