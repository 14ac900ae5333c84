"""The settings of a training run: options, a file, and what a run folder says."""

import dataclasses
import json
import math
import pathlib
import tomllib
from typing import Annotated, Any, TypeVar, get_args, get_origin

import tyro

from bptt_jax import verify
from bptt_jax.cli import _parse

CELLS = ", ".join(name for name, member in verify.CELLS.items() if member.trained)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Train a recurrent network by backpropagation through time.

    The same command again continues a run that was stopped.
    """

    task: str = "stdlib"
    """stdlib, shakespeare (text); adding, copy, temporal-order, coin, sine, digits,
    spoken-digits."""
    text: pathlib.Path | None = None
    """A text file of your own, instead of a task."""
    data: pathlib.Path | None = None
    """Sequences of your own, instead of a task: a .csv, .parquet, .npy, .npz or .ts
    file; bptt-jax data FILE says what is understood of it."""
    target: str | None = None
    """Of --data: the column (of a .npz: the array) of labels or numbers that are learnt;
    with --horizon the feature that is forecast."""
    sequence: str | None = None
    """Of --data: the column that names the sequence of a row."""
    time: str | None = None
    """Of --data: the column that orders the rows of a sequence."""
    horizon: int | None = None
    """Of --data: forecast so many steps at once, of the --length steps before."""
    season: int | None = None
    """Of --horizon: steps after which a series repeats itself, to compare with."""
    cell: Annotated[str, tyro.conf.arg(help=CELLS)] = "lstm"
    unroll: str = "bptt"
    """bptt (hand-derived) or scan (differentiated by JAX)."""
    hidden: int = 256
    """Hidden units of a layer."""
    layers: int = 1
    """Recurrent layers."""
    embedding: int = 64
    """Features of a symbol."""
    dropout: float = 0.0
    """Rate of dropout after each recurrent layer."""
    bidirectional: bool = False
    """Each recurrent layer in both directions of time, --hidden units each."""
    pool: str | None = None
    """last, mean or attention: what is made of all steps where a sequence has one target; by
    default the outputs of its last step."""
    truncation: str | None = None
    """Steps the gradient goes back (a number), or adaptive: as few as keep its bias
    small; by default all of a batch."""
    remat: bool = False
    """Store less and compute each stretch of time twice."""
    chunk: int | None = None
    """Steps of a stretch of time; by default from the sizes, at least 16."""
    optimizer: str = "adam"
    """adam, adamw, rmsprop, sgd."""
    lr: float | None = None
    """Learning rate at its highest; by default 0.006 for text, 0.002 else."""
    schedule: str = "cosine"
    """cosine, linear (both down to zero at the last step) or constant, after the warm-up."""
    warmup: int | None = None
    """Steps in which the rate rises from zero; by default a tenth, at most 100."""
    clip: float = 1.0
    """The gradient's global norm is clipped to this."""
    batch: int | None = None
    """Sequences of a batch; by default 32, of a short text as many as it fills."""
    length: int | None = None
    """Steps of time in a batch; the task's own by default (text: 64)."""
    steps: int | None = None
    """Updates in all; by default 2500 for text, 2000 else."""
    epochs: int | None = None
    """Passes over the data, instead of steps."""
    score: str | None = None
    """The metric that says what is best (accuracy, MAE, …); by default the held-out loss."""
    maximise: bool = False
    """Of --score: more is better, as of an accuracy."""
    patience: int | None = None
    """Stop after so many evaluations without a better held-out loss, or --score."""
    evaluate_every: int = 250
    """Steps between two evaluations."""
    checkpoint_every: int = 250
    """Steps between two checkpoints."""
    seed: int = 0
    """Of everything that is drawn."""
    init_from: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Begin with the best weights of a run of the same network."""
    quick: bool = False
    """A small model (--hidden 64) and 60 steps, where nothing else is said: does it run
    at all?"""
    mesh: str | None = None
    """data: the examples of a batch are spread over all devices (for the CPU: cores)."""
    tensorboard: bool = False
    """Write TensorBoard event files, too."""
    out: pathlib.Path | None = None
    """The run's folder; by default runs/TASK-CELL."""
    config: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON or TOML with any of these options, or a run's config.json; options on the command
    line win."""


S = TypeVar("S", bound=Settings)
FILES = ("text", "data", "out", "config", "init_from")
_UNSAVED = ("out", "config", "tensorboard")
NAMES = tuple(field.name for field in dataclasses.fields(Settings))


def parse(argv: list[str]) -> Settings:
    """Options over a file over defaults."""
    settings, said = _parse.parse(Settings, argv, "bptt-jax train"), _parse.said(argv)
    check_said(said)
    if settings.config is not None:
        there = _read(settings.config)
        defaults = dataclasses.replace(Settings(), **there)
        settings = _parse.parse(Settings, argv, "bptt-jax train", defaults)
        said |= there.keys()
    settings = quick(settings, said)
    check(settings)
    return settings


QUICK = dict(hidden=64, evaluate_every=30, checkpoint_every=30)


def quick(s: S, said: set[str]) -> S:
    """With `--quick` small values stand where others were not said."""
    if not s.quick:
        return s
    small = {k: v for k, v in QUICK.items() if k not in said}
    return dataclasses.replace(s, **small, steps=None if s.epochs else s.steps or 60)


def check_said(said: set[str]) -> None:
    """Refuses options of which one would silence the other."""
    of = [name for name in ("text", "data", "task") if name in said]
    if len(of) > 1:
        raise ValueError(f"--{of[0]} and --{of[1]} exclude each other")


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise ValueError(
            f"{path}: neither JSON nor TOML that can be read: {error}"
        ) from None
    return _of_file(path, found)


def _of_file(path: pathlib.Path, found: Any) -> dict[str, Any]:
    """Options by name, each in its own type."""
    if not isinstance(found, dict):
        raise ValueError(
            f"{path}: expected options by name, got {type(found).__name__}"
        )
    if {"settings", "versions"} <= set(found):  # of a run
        return _of_file(path, found["settings"])
    found = {name.replace("-", "_"): value for name, value in found.items()}
    unknown = sorted(set(found) - set(NAMES))
    if unknown:
        raise ValueError(f"{path}: unknown options: {', '.join(unknown)}")
    kinds = {field.name: field.type for field in dataclasses.fields(Settings)}
    for name, value in found.items():
        found[name] = _typed(path, name, value, kinds[name])
    return found


def _typed(path: pathlib.Path, name: str, value: Any, kind: Any) -> Any:
    """A value of a file in the option's own type."""
    if get_origin(kind) is Annotated:
        kind, *_ = get_args(kind)
    if name in FILES:
        kind = pathlib.Path | None
    if kind == pathlib.Path | None and isinstance(value, str):
        return pathlib.Path(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and kind in (float, float | None):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{path}: {name}: expected {_words(kind)}, got {value!r}")
    return value


def _words(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false"}
    kind = next(k for k in get_args(kind) or (kind,) if k is not type(None))
    return words.get(kind, "a text")


def check(s: Settings) -> None:
    """Refuses impossible sizes before anything is built or written."""
    for name in (
        "hidden", "layers", "embedding", "batch", "length", "steps", "epochs", "chunk",
        "patience", "evaluate_every", "checkpoint_every", "horizon", "season",
    ):  # fmt: skip
        value = getattr(s, name)
        if value is not None and not 1 <= value < 2**31:
            raise ValueError(
                f"--{name.replace('_', '-')} must be at least 1"
                f"{' and below 2^31' if value > 1 else ''}, got {value}"
            )
    for name in ("lr", "clip"):
        value = getattr(s, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"--{name} must be finite and positive, got {value}")
    if s.warmup is not None and not 0 <= s.warmup < 2**31:
        raise ValueError(f"--warmup must be at least 0, got {s.warmup}")
    if not 0 <= s.dropout < 1:
        raise ValueError(f"--dropout must lie in [0, 1), got {s.dropout}")
    check_seed(s.seed)
    check_data(s)
    check_truncation(s)
    check_whole(s)
    if s.mesh not in (None, "data"):
        raise ValueError(f"--mesh {s.mesh}: expected data")
    if s.maximise and s.score is None:
        raise ValueError("--maximise goes with --score")
    if s.steps is not None and s.epochs is not None:
        raise ValueError("--steps and --epochs exclude each other")


def check_data(s: Settings) -> None:
    """Refuses what says something of a file where there is none."""
    if s.data is not None and s.text is not None:
        raise ValueError("--text and --data exclude each other")
    for name in ("target", "sequence", "time", "horizon"):
        if s.data is None and getattr(s, name) is not None:
            raise ValueError(f"--{name} goes with --data")
    if s.season is not None and s.horizon is None:
        raise ValueError("--season goes with --horizon")


def check_truncation(s: Settings) -> None:
    if s.truncation is None:
        return
    if s.truncation != "adaptive" and not (
        s.truncation.isdecimal() and int(s.truncation) >= 1
    ):
        raise ValueError(
            f"--truncation {s.truncation}: expected a number of steps or adaptive"
        )
    for other, chosen in (("--unroll scan", s.unroll == "scan"), ("--chunk", s.chunk)):
        if chosen:
            raise ValueError(f"--truncation does not go with {other}")
    if s.truncation == "adaptive" and s.mesh:
        raise ValueError("--truncation adaptive does not go with --mesh")


def check_whole(s: Settings) -> None:
    """Refuses what does not go with a model that needs the whole sequence."""
    if s.pool not in (None, "last", "mean", "attention"):
        raise ValueError(f"--pool {s.pool}: expected last, mean or attention")
    if s.truncation is not None and (s.bidirectional or s.pool):
        option = "--bidirectional" if s.bidirectional else "--pool"
        raise ValueError(f"--truncation does not go with {option}")


def check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must lie in [0, 2^32), got {seed}")


def saved(s: Settings) -> dict[str, Any]:
    """The settings that make a run what it is, as JSON has them."""
    each = {k: v for k, v in dataclasses.asdict(s).items() if k not in _UNSAVED}
    return {k: str(v) if isinstance(v, pathlib.Path) else v for k, v in each.items()}


_KINDS = {
    "data": (dict, "names and values"),
    "symbols": (list | None, "a list of texts, or null"),
    "steps": (int, "a whole number"),
    "chunk": (int | None, "a whole number, or null"),
}
"""Of what a run's `config.json` has beside the settings."""


def load(run: pathlib.Path) -> tuple[Settings, dict[str, Any]]:
    """The settings of a run folder, and the whole of its `config.json`.

    Raises:
      ValueError: it is no run's folder, or the file is damaged.
    """
    path = run / "config.json"
    if not path.exists():
        raise ValueError(f"{run} is not a run: it has no config.json")
    try:
        config = json.loads(path.read_text())
        missing = {"settings", "data", "symbols", "steps", "chunk"} - set(config)
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        for name, (kind, words) in _KINDS.items():
            value = config[name]
            if not isinstance(value, kind) or isinstance(value, bool):
                found = json.dumps(value)[:40]
                raise ValueError(f"{name}: expected {words}, got {found}")
        values = _of_file(path, config["settings"])
        settings = dataclasses.replace(Settings(out=run), **values)
        check(settings)
        return settings, config
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
