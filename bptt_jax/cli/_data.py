"""`bptt-jax data FILE`: what `train --data FILE` understands of it."""

import dataclasses

import jax
import numpy as np
from rich.console import Console

from bptt_jax.cli import _settings
from bptt_jax.cli._own import Own, own_of
from bptt_jax.cli._parse import File, parse
from bptt_jax.cli._settings import Settings

_MOST = 20
"""Names and classes that are shown."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Say what is understood of a file, and what would be held out. Nothing is trained."""

    file: File
    """A .csv, .parquet, .npy, .npz or .ts file."""
    target: str | None = None
    """Labels or numbers that are learnt; with --horizon the feature that is forecast."""
    sequence: str | None = None
    """The column that names the sequence of a row."""
    time: str | None = None
    """The column that orders the rows of a sequence."""
    horizon: int | None = None
    """Forecast so many steps at once."""
    season: int | None = None
    """Steps after which a series repeats itself, to compare forecasts with."""
    length: int | None = None
    """With --horizon: steps that a forecast sees."""


def command(argv: list[str]) -> int:
    given = dataclasses.asdict(parse(Data, argv, "bptt-jax data"))
    settings = Settings(data=given.pop("file"), **given)
    _settings.check(settings)
    own = own_of(settings)
    console = Console(highlight=False)
    console.print(f"[bold]{settings.data}[/bold]  sha256 {own.dataset.sha256[:12]}")
    about = _forecast if settings.horizon else _sequences
    for line in about(settings, own):
        console.print(line, soft_wrap=True, markup=False)
    return 0


def _sequences(s: Settings, own: Own) -> list[str]:
    xs, task = own.dataset.inputs, own.task
    held, values = _held_out(own)
    lengths = [len(x) for x in xs]
    what = f"{task.n_in} symbols" if task.tokens else _named(own, task.n_in)
    found = [f"{len(xs):,} sequences of {_range(lengths)} steps, {what}"]
    if own.dataset.targets is None:
        found.append("no targets: at each step the next input is predicted")
    else:
        found.append(f"targets, one a {_per(own)}: {_targets(own)}")
    found.append(f"held out would be {held:,} of the sequences")
    if values is not None:
        found += _classes(own, values)
    return found + [f"{k}: {v:.4g} a step" for k, v in task.baselines.items()]


def _forecast(s: Settings, own: Own) -> list[str]:
    xs, task = own.dataset.inputs, own.task
    many = isinstance(xs, list) or xs.ndim > 2
    lengths = [len(x) for x in xs] if many else [len(xs)]
    held, _ = _held_out(own)
    T, ahead = task.record["T"], task.record["horizon"]
    outputs = task.n_out // ahead
    which = s.target or ("all of them" if outputs > 1 else "it")
    found = [
        f"{len(lengths):,} series of {_range(lengths)} steps, {_named(own, task.n_in)}",
        f"forecast: {which}, {ahead} steps ahead, of the {T} before",
        f"held out would be the last tenth of each series: {held:,} windows",
    ]
    for name, metric in task.metrics.items():
        each = ", ".join(f"{of} {value:.4g}" for of, value in metric.baselines.items())
        found.append(f"{name} there: {each}")
    return found


def _held_out(own: Own) -> tuple[int, np.ndarray | None]:
    """How many sequences or windows are held out; their labels, one a sequence."""
    stream, encoding = own.task.held_out, own.task.encoding
    classes = None if encoding is None or encoding.per_step else encoding.classes
    held, values = 0, []
    for i in range(stream.length or 0):  # windows of a long series are many
        item = jax.tree.map(np.asarray, stream.read(i, 1))
        real = item.lengths > 0
        held += int(real.sum())
        values += [item.targets[real]] if classes else []
    if not classes:
        return held, None
    return held, np.array(classes)[np.concatenate(values)]


def _classes(own: Own, held: np.ndarray) -> list[str]:
    """Of each class, how many sequences there are and would be held out."""
    classes, counts = np.unique(own.dataset.targets, return_counts=True)
    each = [
        f"  {name}: {n:,}, of these held out {(held == name).sum():,}"
        for name, n in zip(classes[:_MOST], counts, strict=False)
    ]
    return each + ["  …"] * (len(classes) > _MOST)


def _per(own: Own) -> str:
    encoding = own.task.encoding
    return "step" if encoding is not None and encoding.per_step else "sequence"


def _targets(own: Own) -> str:
    encoding = own.task.encoding
    if encoding is not None and encoding.classes is not None:
        return f"{len(encoding.classes)} classes"
    return f"{own.task.n_out} number{'s' * (own.task.n_out > 1)}"


def _named(own: Own, n: int) -> str:
    names = own.dataset.features
    shown = ", ".join(names[:_MOST]) + ", …" * (len(names) > _MOST)
    own_names = names != tuple(map(str, range(len(names))))
    return f"{n} feature{'s' * (n > 1)}" + (f": {shown}" if own_names else "")


def _range(lengths: list[int]) -> str:
    low, high = min(lengths), max(lengths)
    return f"{low}" if low == high else f"{low} to {high}"
