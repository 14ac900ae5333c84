"""What a client sends to workers, and what comes back: one group of configurations."""

from typing import Any, NamedTuple

import numpy as np

from bptt_jax._score import Score


class Job(NamedTuple):
    """A group of a rung, for a worker on any machine.

    attempt: unlike that of any other job: a scheduler that knows what it has run runs it.
    digest, sent: of the training, pickled; `sent` is None where a worker may have it.
    settings: of JAX and versions, as the client has them.
    lanes: configurations on the device.
    numbers: the columns, `[lanes]`; the first `real` of them are configurations.
    step, until: where the rung begins and ends; every: steps between evaluations.
    entering: the lanes as the rung before left them, on the host; None: from the first step.
    score, bound: of which lanes the state comes back: in the last rung the parameters of
        those that are worth no more than the bound, else (None) all of all.
    folder: of the group, where its state is saved; token: a file that is there as long as
        the client is; seconds: between two saves.
    """

    attempt: str
    digest: str
    sent: bytes | None
    settings: dict[str, Any]
    lanes: int
    numbers: dict[str, np.ndarray]
    real: int
    step: int
    until: int
    every: int
    entering: list[Any] | None
    score: Score
    bound: float | None
    folder: str
    token: str
    seconds: float


class Evaluated(NamedTuple):
    """Of a group at a step: the figures of each configuration, and where it diverged."""

    step: int
    figures: list[dict[str, Any]]
    diverged: list[int]


class Ended(NamedTuple):
    """A group at its end. lanes: number in the group -> what is left, on the host;
    hardware: what it ran on; begun: the step from which it was trained here.
    """

    found: list[Evaluated]
    lanes: dict[int, Any]
    hardware: str
    begun: int


class Failed(NamedTuple):
    """The training raised."""

    error: str


class Missing(NamedTuple):
    """The worker does not have the training: it is to be sent."""


class Stopped(NamedTuple):
    """The client is gone, or does not want it any more."""


class Unfit(NamedTuple):
    """The worker cannot run any group: what is wrong with it."""

    error: str
