"""From somebody's data to what a model sees, and from what it says back to labels and units."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bptt_jax.tasks._forecasts import of_values, scaled_error
from bptt_jax.tasks._sequences import (
    Sequences,
    by_names,
    is_text,
    refuse_not_finite,
    scaled,
    sequences,
)
from bptt_jax.tasks._targets import LABELS, NUMBERS, TRUTHS, targets_of
from bptt_jax.types import Encoding, Objective, Task


class Compared(NamedTuple):
    """Targets of new data, as an objective of a task compares with them.

    values: `[M]` or `[M, O]`, of each sequence, or of each step one after another.
    given: the same in labels and units.
    """

    values: np.ndarray
    given: np.ndarray


def form_of(task: Task) -> Objective:
    """The objective of `objectives` whose targets are like those of the task: labels, truths
    or numbers.

    >>> from bptt_jax import objectives, tasks
    >>> form_of(tasks.adding()) is objectives.squared_error
    True
    """
    if task.encoding is not None and task.encoding.classes is not None:
        return LABELS
    return task.objective if task.objective in (LABELS, TRUTHS) else NUMBERS


def encoding_of(task: Task) -> Encoding:
    """That of the task; of one that has none: what a model sees is what is given."""
    return Encoding() if task.encoding is None else task.encoding


def encoded(task: Task, xs: Any, name: str = "xs") -> Sequences:
    """Sequences as a model of the task sees them: scaled features `[M, F]`, or symbols `[M]`;
    or a dict of these.

    Args:
      task: its sizes and its encoding are used, and no data.
      xs: as `tasks.arrays` takes inputs, of any number and any lengths.
      name: the argument's, for errors.

    Raises:
      TypeError, ValueError: they are not of the form of the task's inputs.
    """
    if isinstance(task.n_in, dict):
        return _each(task, xs, name)
    found = sequences(name, xs)
    if not len(found.lengths) or not found.lengths.all():
        which = f"sequence {int(found.lengths.argmin())} has" if len(xs) else "got"
        raise ValueError(f"{name}: expected steps in each sequence, {which} none")
    joined = found.joined
    if is_text(joined):
        raise TypeError(f"{name}: expected numbers, got text")
    if task.tokens:
        if joined.ndim > 1 or joined.dtype.kind not in "iu":
            raise TypeError(
                f"{name}: expected symbols, integers [N, T], got {joined.dtype} with "
                f"{joined.ndim - 1} axes of features"
            )
        low, high = joined.min(), joined.max()
        if low < 0 or high >= task.n_in:
            raise ValueError(
                f"{name}: expected symbols from 0 to {task.n_in - 1}, got "
                f"{low if low < 0 else high}"
            )
        return found._replace(joined=joined.astype(np.int32))
    found = found._replace(joined=joined.reshape(len(joined), -1))
    if found.joined.shape[1] != task.n_in:
        raise ValueError(
            f"{name}: expected {task.n_in} features a step, got {found.joined.shape[1]}"
        )
    refuse_not_finite(name, found)
    return found._replace(joined=scaled(found.joined, encoding_of(task).inputs))


def _each(task: Task, xs: Any, name: str) -> Sequences:
    """Of a task whose inputs are a dictionary."""
    if not isinstance(xs, Mapping) or set(xs) != set(task.n_in):
        got = ", ".join(map(str, xs)) if isinstance(xs, Mapping) else type(xs).__name__
        raise ValueError(
            f"{name}: expected a dictionary of {', '.join(task.n_in)}, got {got}"
        )
    scales = encoding_of(task).inputs or {}

    def one(where: str, key: str, given: Any) -> Sequences:
        scale = Encoding(scales.get(key))
        tokens = isinstance(task.tokens, tuple) and key in task.tokens
        of = dict(n_in=task.n_in[key], tokens=tokens, encoding=scale)
        return encoded(task._replace(**of), given, where)

    pairs = {key: (key, given) for key, given in xs.items()}
    return by_names(name, pairs, lambda where, pair: one(where, *pair))


def compared(task: Task, ys: Any, xs: Sequences, name: str = "ys") -> Compared:
    """Targets of these sequences; None: the next inputs, of all steps but the last.

    Raises:
      TypeError, ValueError: they are not of the form of the task's targets, or of a class that
        it does not know.
    """
    encoding, form = encoding_of(task), form_of(task)
    if ys is None:
        return _next(task, xs)
    if not encoding.per_step and encoding.shape is not None and len(encoding.shape) > 1:
        whole = np.asarray(ys)
        if whole.shape[1:] != encoding.shape:
            raise ValueError(
                f"{name}: expected [N, {', '.join(map(str, encoding.shape))}], got "
                f"{list(whole.shape)}"
            )
        ys = whole.reshape(len(whole), -1)
    found = targets_of(name, ys, xs.lengths, form, encoding.per_step)
    values = found.values
    if form is LABELS:
        return Compared(_numbers_of(task, values, name), values)
    if values.shape[1] != task.n_out:
        raise ValueError(
            f"{name}: expected {task.n_out} values each, got {values.shape[1]}"
        )
    return Compared(scaled(values, encoding.targets), values)


def _numbers_of(task: Task, labels: np.ndarray, name: str) -> np.ndarray:
    """int32, which output each label is."""
    classes = encoding_of(task).classes
    known = np.arange(task.n_out) if classes is None else np.array(classes)
    bad = ~np.isin(labels, known)
    if bad.any():
        raise ValueError(f"{name}: {labels[bad][0].item()!r} is no class of the run")
    order = np.argsort(known)
    at = np.searchsorted(known, labels, sorter=order)
    return order[at].astype(np.int32)


def predicts_next(task: Task) -> bool:
    """Whether its targets are the next inputs, as far as its encoding says."""
    encoding = encoding_of(task)
    targets = encoding.classes is not None or encoding.shape is not None
    return encoding.per_step and not targets and task.n_in == task.n_out


def _next(task: Task, xs: Sequences) -> Compared:
    if not encoding_of(task).per_step or task.n_in != task.n_out:
        raise ValueError(
            "ys: expected targets, got None; the next inputs are no targets"
        )
    last = np.zeros(xs.lengths.sum(), bool)
    last[xs.begins + xs.lengths - 1] = True
    values = np.roll(xs.joined, -1, axis=0)[~last]
    if not len(values):
        raise ValueError("xs: expected two steps in a sequence at least, got one")
    scale = encoding_of(task).targets
    return Compared(values, values if scale is None else unscaled(values, scale))


def unscaled(values: Any, scale: Any) -> Any:
    """In float64, in the units of the data."""
    if scale is None:
        return np.asarray(values, np.float64)
    return np.asarray(values, np.float64) * scale.deviation + np.array(scale.mean)


def decoded(task: Task, ys: np.ndarray) -> np.ndarray:
    """What outputs `[..., O]` say: labels `[...]`, truths or numbers in their units.

    Truths and numbers have the axes of one target as it was given.
    """
    form = form_of(task)
    if form is LABELS:
        return labels(task, ys.argmax(-1))
    found = ys > 0 if form is TRUTHS else unscaled(ys, encoding_of(task).targets)
    return shaped(task, found)


def labels(task: Task, index: np.ndarray) -> np.ndarray:
    """The labels of outputs by their numbers."""
    classes = encoding_of(task).classes
    return index if classes is None else np.array(classes)[index]


def refuse_numbers(task: Task) -> None:
    """Where there is no probability.

    Raises:
      ValueError: the task's targets are numbers.
    """
    if form_of(task) is NUMBERS:
        raise ValueError(
            "expected a run of classes or truths; this one predicts numbers"
        )


def probabilities(task: Task, ys: np.ndarray) -> np.ndarray:
    """Of outputs `[..., O]`: of each class, in the order of `Encoding.classes`; of truths
    those of True.
    """
    ys = ys.astype(np.float64)
    if form_of(task) is TRUTHS:
        return shaped(task, np.exp(-np.logaddexp(0, -ys)))
    odds = np.exp(ys - ys.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def shaped(task: Task, values: np.ndarray) -> np.ndarray:
    shape = encoding_of(task).shape
    return values if shape is None else values.reshape(*values.shape[:-1], *shape)


def naive_errors(task: Task, series: Any, n: int) -> np.ndarray | None:
    """What MASE divides the errors of so many forecasts by, `[n, O]`; None: not known.

    Args:
      series: of each forecast that which it is of, as `Encoding.naive` has them; None: not
        said, which is enough where there is one.

    Raises:
      ValueError: there is no such series, or none at all.
    """
    known = encoding_of(task).naive
    if series is None:
        one = known is not None and len(known) == 1
        return np.tile([*known.values()], (n, 1)) if known and one else None
    if known is None:
        raise ValueError(
            "series: the run is no forecast, or an older version's, which does not know "
            "what MASE divides by"
        )
    names = np.asarray(series)
    if names.shape != (n,):
        raise ValueError(
            f"series: expected {n}, one for each forecast, got {list(names.shape)}"
        )
    for name in names.tolist():
        if name not in known:
            raise ValueError(f"series: {name!r} is no series of the run's training")
    return np.array([known[name] for name in names.tolist()])


def figures(
    task: Task, ys: np.ndarray, wanted: Compared, naive: np.ndarray | None = None
) -> dict[str, float]:
    """`loss`, of the task's objective, and what is said of such targets: accuracy of labels
    and truths, MAE and RMSE of numbers in their units, MASE of forecasts.

    Args:
      ys: outputs `[M, O]`.
      wanted: as many.
      naive: of `naive_errors`.
    """
    form, objective = form_of(task), plain_objective(task)
    found = {"loss": float(np.mean(objective(ys, wanted.values)))}
    if form is NUMBERS:
        errors = unscaled(ys, encoding_of(task).targets) - wanted.given
        mean = float(np.abs(errors).mean()), float(np.sqrt((errors**2).mean()))
        found |= dict(zip(("MAE", "RMSE"), mean, strict=True))
        if naive is not None:
            errors = errors.reshape(len(errors), -1, naive.shape[1])
            found["MASE"] = scaled_error(errors, naive)
        return found
    said = ys.argmax(-1) if form is LABELS else ys > 0
    right = said == (wanted.values if form is LABELS else wanted.values > 0.5)
    return found | {"accuracy": float(right.mean())}


def plain_objective(task: Task) -> Callable:
    """The task's objective, of targets that are values alone."""
    made = getattr(task.objective, "made", None)
    if made is None or made.func is not of_values:
        return task.objective
    return made.args[0]
