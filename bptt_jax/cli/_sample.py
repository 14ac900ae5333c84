"""`bptt-jax sample RUN`: text from a trained network."""

import dataclasses
import pathlib
from typing import Annotated

import jax
import tyro

from bptt_jax import train
from bptt_jax.cli import _settings
from bptt_jax.cli._build import job
from bptt_jax.cli._train import written


@dataclasses.dataclass(frozen=True)
class Sample:
    """Write text with a trained network."""

    run: Annotated[pathlib.Path, tyro.conf.Positional]
    """A run's folder."""
    prompt: str = "\n"
    """What the text begins with."""
    length: int = 500
    """Characters to write."""
    temperature: float = 0.7
    """Small is more certain, 1 is the network's own distribution."""
    seed: int = 0
    """Of everything that is drawn."""


def command(argv: list[str]) -> int:
    s = tyro.cli(Sample, args=argv, prog="bptt-jax sample")
    if s.length < 1:
        raise ValueError(f"--length must be at least 1, got {s.length}")
    if not s.temperature > 0:
        raise ValueError(f"--temperature must be positive, got {s.temperature}")
    settings, _ = _settings.load(s.run)
    work = job(settings)
    if work.task.symbols is None:
        raise ValueError(f"{s.run} is no model of text: its task is {settings.task}")
    if not (s.run / "checkpoint").exists():
        raise ValueError(f"{s.run} has no checkpoint yet")
    state = train.init(
        work.model, work.estimator, work.optimizer, work.task.train, jax.random.key(0)
    )
    checkpoints = train.Checkpoints(s.run / "checkpoint")
    try:
        found = checkpoints.restore(state)
    finally:
        checkpoints.close()
    if found is None:
        raise ValueError(f"{s.run} has no checkpoint yet")
    text = written(
        work.model, found.params, work.task, s.prompt, s.length, s.temperature, s.seed
    )
    print(text)
    return 0
