"""`bptt-jax sample RUN`: text from a trained network."""

import dataclasses
import math
import pathlib
import sys
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from bptt_jax import models, train
from bptt_jax.cli import _settings
from bptt_jax.cli._build import model_of, recorded_task
from bptt_jax.cli._parse import Folder, parse
from bptt_jax.types import Text


@dataclasses.dataclass(frozen=True)
class Sample:
    """Write text with a trained network."""

    run: Folder
    """A run's folder."""
    prompt: str = "\n"
    """What the text begins with."""
    prompt_file: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A file of text that it begins with."""
    length: int = 500
    """Characters to write."""
    temperature: float = 0.7
    """Small is more certain, 0 the most probable symbol, 1 the network's own distribution."""
    top_k: int | None = None
    """Draw from so many symbols, the most probable."""
    top_p: float | None = None
    """Draw from the fewest symbols whose probabilities add up to this."""
    stop: tuple[str, ...] = ()
    """End before the first of these texts."""
    samples: int = 1
    """Texts to write, at the same time."""
    seed: int = 0
    """Of everything that is drawn."""


def command(argv: list[str]) -> int:
    s = parse(Sample, argv, "bptt-jax sample")
    _check(s)
    run = _run(s.run)
    best = run.best
    evaluated = not math.isnan(best.held_out)
    of = f"step {best.position:,}, the best on held-out data"
    of = of if evaluated else "the last checkpoint: none was evaluated yet"
    prompt = _prompt(s)
    options: dict[str, Any] = dict(
        temperature=s.temperature,
        top_k=s.top_k,
        top_p=s.top_p,
        stop=s.stop,
        seed=s.seed,
    )
    texts = (
        [run.stream(prompt, s.length, **options)]
        if s.samples == 1
        else [
            [text] for text in run.generate([prompt] * s.samples, s.length, **options)
        ]
    )
    print(f"by the parameters of {of}", file=sys.stderr)
    for i, pieces in enumerate(texts):
        if i:
            print(f"\n{'-' * 40}")
        print(prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
    return 0


def _check(s: Sample) -> None:
    for name in ("length", "samples", "top_k"):
        value = getattr(s, name)
        if value is not None and value < 1:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} must be at least 1, got {value}")
    if not 0 <= s.temperature < math.inf:
        raise ValueError(
            f"--temperature must be finite and at least 0, got {s.temperature}"
        )
    if s.top_p is not None and not 0 < s.top_p <= 1:
        raise ValueError(f"--top-p must lie in (0, 1], got {s.top_p}")
    if not all(s.stop):
        raise ValueError("--stop: expected texts of at least a character")
    if s.prompt_file is not None and s.prompt != "\n":
        raise ValueError("--prompt and --prompt-file exclude each other")
    _settings.check_seed(s.seed)


def _prompt(s: Sample) -> str:
    if s.prompt_file is None:
        return s.prompt or "\n"
    try:
        return s.prompt_file.read_text(encoding="utf-8") or "\n"
    except UnicodeDecodeError:
        raise ValueError(f"{s.prompt_file}: expected text in UTF-8") from None


def _run(folder: pathlib.Path) -> train.Run:
    """A run on text; of the command line also one whose `run.json` names no model."""
    model = task = None
    if (folder / "config.json").exists():
        settings, config = _settings.load(folder)
        if config["symbols"] is None:
            what = settings.data or settings.task
            raise ValueError(f"{folder} is no model of text: its task is {what}")
        task = recorded_task(config)
        model = model_of(settings, task)
    elif not folder.is_dir() or train.record(folder) is None:
        raise ValueError(f"{folder} is not a run: it has no config.json")
    if train.record(folder) is None:
        raise ValueError(f"{folder} has no checkpoint yet")
    run = train.load(folder, model=model, task=task)
    if run.task.text is None:
        raise ValueError(f"{folder} is no model of text")
    return run


def written(
    model, params, text: Text, prompt: str, n: int, temperature: float, seed: int
) -> str:
    """What the model writes after the prompt, n characters."""
    most = n * text.most
    tokens = jnp.asarray(text.encode(prompt))
    key = jax.random.key(seed)
    drawn = models.generate(model, params, tokens, most, temperature, key)
    return text.decode(np.asarray(drawn))[:n]
