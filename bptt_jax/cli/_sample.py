"""`bptt-jax sample RUN`: text from a trained network."""

import dataclasses
import math
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import models, tasks, train
from bptt_jax.cli import _settings
from bptt_jax.cli._build import model_of, recorded_task
from bptt_jax.cli._parse import Folder, parse
from bptt_jax.types import PyTree, Task


@dataclasses.dataclass(frozen=True)
class Sample:
    """Write text with a trained network."""

    run: Folder
    """A run's folder."""
    prompt: str = "\n"
    """What the text begins with."""
    length: int = 500
    """Characters to write."""
    temperature: float = 0.7
    """Small is more certain, 0 the most probable symbol, 1 the network's own distribution."""
    seed: int = 0
    """Of everything that is drawn."""


def command(argv: list[str]) -> int:
    s = parse(Sample, argv, "bptt-jax sample")
    if s.length < 1:
        raise ValueError(f"--length must be at least 1, got {s.length}")
    if not 0 <= s.temperature < math.inf:
        raise ValueError(
            f"--temperature must be finite and at least 0, got {s.temperature}"
        )
    _settings.check_seed(s.seed)
    settings, config = _settings.load(s.run)
    if config["symbols"] is None:
        raise ValueError(f"{s.run} is no model of text: its task is {settings.task}")
    task = recorded_task(config)
    model = model_of(settings, task)
    params, of = _params(s.run / "checkpoint", model)
    print(f"by the parameters of {of}", file=sys.stderr)
    prompt = s.prompt or "\n"
    text = written(model, params, task, prompt, s.length, s.temperature, s.seed)
    print(prompt + text)
    return 0


def _params(folder: pathlib.Path, model) -> tuple[PyTree, str]:
    """The best parameters, the last where none were evaluated yet; which they are."""
    if not folder.exists():
        raise ValueError(f"{folder.parent} has no checkpoint yet")
    checkpoints = train.Checkpoints(folder)
    try:
        like = jax.eval_shape(model.init, jax.random.key(0))
        best = checkpoints.restore_best(like)
        if best is not None:
            return best.params, f"step {best.position:,}, the best on held-out data"
        last = checkpoints.restore_params(like)
    finally:
        checkpoints.close()
    if last is None:
        raise ValueError(f"{folder.parent} has no checkpoint yet")
    return last, "the last checkpoint: none was evaluated yet"


def written(
    model, params, task: Task, prompt: str, n: int, temperature: float, seed: int
) -> str:
    """What the model writes after the prompt, n characters."""
    most = n * tasks.symbols_per_character(task)
    tokens = jnp.asarray(tasks.encode(task, prompt))
    key = jax.random.key(seed)
    drawn = models.generate(model, params, tokens, most, temperature, key)
    return tasks.decode(task, np.asarray(drawn))[:n]
