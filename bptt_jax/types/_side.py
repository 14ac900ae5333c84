"""What goes beside the inputs."""

from typing import NamedTuple

from jax import Array

from bptt_jax.types._pytree import PyTree


class Side(NamedTuple):
    """What every layer of a stretch sees beside its inputs.

    mask: bool `[T, ...]`, False where the step has not been: the state is carried
        through, an output that is part of the state is held, any other is zero, its
        loss is zero, and nothing of the input there is read, NaN included.
    resets: bool `[T, ...]`, True where the state is initialised anew *before* step t,
        which also cuts the gradient.
    keys: `[T]` PRNG keys (`jax.random.split(key, T)`), or legacy ones, uint32 `[T, 2]`;
        without them layers that draw (dropout, zoneout) compute the expectation, as in
        evaluation.
    targets: what the objective compares with, leaves `[T, ...]`, or a `Weighted`; its
        floating leaves have a gradient.
    aux: leaves `[T, ...]`, handed to `on_d_carry`; constants: differentiating by a
        floating one raises a TypeError. Of hooks `layers.in_turn(first, second)` it is the
        pair of theirs.
    """

    mask: Array | None = None
    resets: Array | None = None
    keys: Array | None = None
    targets: PyTree = None
    aux: PyTree = None


class Weighted(NamedTuple):
    """Targets whose steps do not count alike: losses are multiplied by `weights`.

    weights: `[T]`, or with any of the batch axes that follow; see
        `objectives.at_last_step` for the last real step of each sequence. Where one is
        zero nothing of the output and of the target is read, as at a masked step: a
        target there may be anything, NaN or a symbol that does not exist.
    """

    targets: PyTree
    weights: Array
