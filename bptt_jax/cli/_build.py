"""From settings to a task, a model and an optimizer. Names are mapped to functions here
and nowhere else.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax

from bptt_jax import (
    diagnose,
    estimators,
    layers,
    models,
    objectives,
    tasks,
    train,
    unrolls,
    verify,
)
from bptt_jax.cli._own import ROWS, own_of
from bptt_jax.cli._sections import asked, sections_of
from bptt_jax.cli._settings import Settings
from bptt_jax.types import Cell, Estimator, Layer, Sections, Stream, Task, Text, Unroll

CELLS: dict[str, Callable[[int, int], Cell]] = {
    name: member.trained for name, member in verify.CELLS.items() if member.trained
}
OPTIMIZERS = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}


def _cosine(warmup: int, steps: int) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, max(steps, warmup + 1))


def _linear(warmup: int, steps: int) -> optax.Schedule:
    return _warmed(warmup, optax.linear_schedule(1.0, 0.0, max(steps - warmup, 1)))


def _constant(warmup: int, steps: int) -> optax.Schedule:
    del steps
    return _warmed(warmup, optax.constant_schedule(1.0))


def _warmed(warmup: int, then: optax.Schedule) -> optax.Schedule:
    if not warmup:
        return then
    return optax.join_schedules(
        [optax.linear_schedule(0.0, 1.0, warmup), then], [warmup]
    )


SCHEDULES = {"cosine": _cosine, "linear": _linear, "constant": _constant}
SHORTEST = 16
"""Steps of a stretch: larger products than the unroll's own 8, for more memory."""
WINDOWS = (4, 8, 16, 32, 64, 128, 256)
"""Of steps, that an adaptive truncation chooses from, where a batch has more."""
TASKS: dict[str, Callable[..., Task]] = {
    {"copy_memory": "copy"}.get(name, name.replace("_", "-")): make
    for name, make in tasks.TASKS.items()
    if name != "text_file"  # it has an option of its own, --text
}


class Job(NamedTuple):
    """All that a run needs. chunk: steps of a stretch; None where the unroll has none."""

    task: Task
    model: Layer | Sections
    estimator: Estimator
    optimizer: optax.GradientTransformation
    steps: int
    chunk: int | None


def _choose(option: str, name: str, among: dict[str, Any]) -> Any:
    if name not in among:
        raise ValueError(f"--{option} {name}: expected one of {', '.join(among)}")
    return among[name]


def task_of(s: Settings) -> Task:
    if s.data is not None:
        return own_of(s).task
    if s.text is not None:
        corpus, T = tasks.file_corpus(s.text), s.length or 64
        return tasks.text(corpus, batch=s.batch or tasks.fitting_batch(corpus, T), T=T)
    make, batch = _choose("task", s.task, TASKS), s.batch or ROWS
    if s.task == "digits":
        if s.length not in (None, 28, 784):
            raise ValueError(
                f"--length {s.length}: digits are read by rows (28) or pixels (784)"
            )
        return make(batch=batch, pixels=s.length == 784)
    if s.task == "spoken-digits":
        if s.length is not None:
            raise ValueError("--length: utterances have lengths of their own")
        return make(batch=batch)
    own = dict(T=s.length) if s.length else {}
    return make(batch=batch, **own)


def model_of(s: Settings, task: Task) -> Layer | Sections:
    make = _choose("cell", s.cell, CELLS)
    if asked(s):
        return sections_of(s, task, make)
    n_in = s.embedding if task.tokens else task.n_in
    sizes = [n_in] + [s.hidden] * s.layers
    each = tuple(make(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
    if task.tokens:
        model = models.symbols(
            task.n_in, s.embedding, each, task.n_out, s.hidden, dropout=s.dropout
        )
    else:
        model = models.features(each, task.n_out, s.hidden, dropout=s.dropout)
    return layers.remat(model) if s.remat else model


def unroll_of(s: Settings, task: Task, chunk: int | None) -> tuple[Unroll, int | None]:
    """The unroll, and the steps of a stretch that it takes."""
    if s.unroll == "scan":
        return unrolls.scan, None
    units = rows_of(task) * s.hidden
    chunk = s.chunk or chunk or unrolls.default_chunk(_length(task), units, SHORTEST)
    return partial(unrolls.bptt, chunk=chunk), chunk


def estimator_of(s: Settings, task: Task, model, make, unroll) -> Estimator:
    """`make` is `estimators.stream` or `estimators.exact`."""
    if s.truncation is None:
        return make(model, task.objective, unroll=unroll)
    T = _length(task)
    if s.truncation == "adaptive":
        windows = tuple(w for w in WINDOWS if w < T) + (T,)
        return diagnose.adaptive_truncation(
            model, task.objective, windows=windows, make=make
        )
    if int(s.truncation) > T:
        raise ValueError(f"--truncation {s.truncation}: a batch has {T} steps")
    cut = partial(unrolls.truncated, window=int(s.truncation))
    return make(model, task.objective, unroll=cut)


def raw_unit(task: Task) -> str:
    """What losses are written down in, in `metrics.jsonl` and in tables."""
    return "loss per step" if task.text is None else f"nats per {task.text.symbol}"


def _length(task: Task) -> int:
    """Steps of time in a batch."""
    return _shape(task)[0]


def rows_of(task: Task) -> int:
    """Sequences in a batch."""
    return _shape(task)[1]


def _shape(task: Task) -> tuple[int, ...]:
    item = jax.tree.map(lambda a: a[0], task.train.read(0, 1))
    batch = jax.eval_shape(task.train.batch, item, jax.random.key(0))
    return jax.tree.leaves(batch.inputs)[0].shape


def fewer_rows(s: Settings, task: Task) -> str | None:
    """That batches are smaller than usual, where nobody asked for it."""
    rows = rows_of(task)
    if s.batch or rows >= ROWS:
        return None
    why = "there are too few" if s.data else "the text is too short"
    return f"batches of {rows} sequences: {why} for {ROWS}"


def steps_of(s: Settings, task: Task) -> int:
    if s.epochs is not None:
        if task.train.length is None:
            raise ValueError(f"--epochs: {s.task} has no end; say --steps")
        return s.epochs * task.train.length
    return s.steps or (60 if s.quick else 2500 if task.text else 2000)


def lr_of(s: Settings, task: Task) -> float:
    return s.lr or (6e-3 if task.text else 2e-3)


def optimizer_of(s: Settings, steps: int, lr, clip) -> optax.GradientTransformation:
    """`lr` and `clip` may be traced."""
    shape = schedule_of(s, steps)
    make = _choose("optimizer", s.optimizer, OPTIMIZERS)
    return optax.chain(
        train.clip_by_global_norm(clip), make(lambda count: lr * shape(count))
    )


def schedule_of(s: Settings, steps: int) -> optax.Schedule:
    """The share of the learning rate at each step."""
    make = _choose("schedule", s.schedule, SCHEDULES)
    if s.warmup is None:
        return make(max(1, min(100, steps // 10)), steps)
    if s.warmup >= steps:
        raise ValueError(f"--warmup {s.warmup}: expected fewer than the {steps} steps")
    return make(s.warmup, steps)


def check_names(s: Settings) -> None:
    """Refuses what names nothing, before data is read."""
    _choose("cell", s.cell, CELLS)
    _choose("optimizer", s.optimizer, OPTIMIZERS)
    _choose("schedule", s.schedule, SCHEDULES)
    _choose("unroll", s.unroll, {"bptt": None, "scan": None})
    if s.chunk is not None and s.unroll != "bptt":
        raise ValueError(f"--chunk goes with --unroll bptt, not with {s.unroll}")


def job(
    s: Settings,
    chunk: int | None = None,
    start: Callable = lambda model: model,
) -> Job:
    """Everything a run needs, or a ValueError that says which option is wrong.

    `chunk` is what a run that is continued has taken so far, `start` gives the model its
    first parameters.
    """
    check_names(s)
    task = task_of(s)
    model = start(model_of(s, task))
    unroll, chunk = unroll_of(s, task, chunk)
    make = estimators.stream if task.stateful else estimators.exact
    steps = steps_of(s, task)
    estimator = estimator_of(s, task, model, make, unroll)
    optimizer = optimizer_of(s, steps, lr_of(s, task), s.clip)
    return Job(task, model, estimator, optimizer, steps, chunk)


def recorded_task(config: dict[str, Any]) -> Task:
    """The task of a run as far as writing text needs it: its data need not be here."""
    symbols = tuple(config["symbols"])
    in_bytes = config["data"].get("encoding") == "bytes"
    text = Text.by_symbols(symbols, in_bytes=in_bytes)
    nothing = Stream(_no_data, _no_data, None)
    return Task(
        len(symbols), len(symbols), objectives.softmax_cross_entropy, nothing, nothing,
        tokens=True, text=text, record=config["data"],
    )  # fmt: skip


def _no_data(*arguments):
    raise ValueError("a recorded task has no data")
