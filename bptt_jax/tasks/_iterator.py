"""A task from a reader of batches: data that do not fit into memory, or are made on the way."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bptt_jax._factory import positive, remembered
from bptt_jax.tasks._metrics import by_form, with_own
from bptt_jax.tasks._padded import Padded, batch_of
from bptt_jax.tasks._readers import Reader, first_of
from bptt_jax.tasks._sequences import is_float, is_text
from bptt_jax.tasks._targets import LABELS, NUMBERS, OBJECTIVES, TRUTHS, is_known
from bptt_jax.types import Encoding, Objective, Stream, Task

FEW = 20
"""Training batches that are evaluated where nothing is held out."""


class Form(NamedTuple):
    """What batches look like, as the first one does.

    inputs: shape of a batch's, `[B, T, F]`, or `[B, T]` of symbols.
    targets: shape of a batch's, `[B]`, `[B, O]`, `[B, T]`, `[B, T, O]`.
    per_step: whether each step has a target.
    form: the objective of this library that compares with such targets.
    lengths: whether batches say how many steps each sequence has.
    n_in, n_out: as of a `Task`.
    names: of inputs, targets (and lengths) where batches are dicts.
    """

    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    per_step: bool
    form: Objective
    lengths: bool
    n_in: int
    n_out: int
    names: tuple[str, ...] | None


@remembered
def iterator(
    make: Callable[[], Any],
    *,
    held_out: Callable[[], Any] | None = None,
    n_in: int | None = None,
    n_out: int | None = None,
    per_step: bool | None = None,
    objective: Objective | None = None,
    names: tuple[str, ...] | None = None,
    held_out_batches: int = 1000,
    metrics: Mapping[str, Any] | None = None,
) -> Task:
    """A task whose batches somebody's reader gives.

    Any iterable will do: grain's `DataLoader` and `IterDataset`, Hugging Face's datasets,
    torch's `DataLoader`, a generator. It is opened as often as it is needed: for shapes,
    for timings, for each epoch. A training that was stopped goes on with the batch after
    the last one that was trained on, whatever had been read ahead: by the reader's own state
    where it has `get_state` and `set_state`, or `state_dict` and `load_state_dict`, which is
    kept in checkpoints; else batches are read again up to there, which is said.

    Args:
      make: opens a new reader of batches `(inputs, targets)` or `(inputs, targets, lengths)`,
        NumPy arrays or what becomes one. Each time it is opened it has to give the same.
        inputs: floats, truths or integers `[B, T, ...]` are features, floats `[B, T]` one
        feature, integers `[B, T]` symbols.
        targets: as those of `tasks.arrays`, labels as integers from 0 on.
        lengths: real steps of each sequence, integers `[B]`, from 0 (an empty row) to T.
        All batches have one shape. Where a reader ends it is opened again.
      held_out: opens the reader of what is held out; None: nothing is, so what is called
        held out are the first 20 training batches, with a warning.
      n_in: how many symbols there are, where inputs are symbols.
      n_out: how many classes there are, where targets are labels; None: `n_in`, where
        inputs are symbols and each step has a target.
      per_step: whether each step has a target; None: what shapes say.
      objective: None: softmax cross-entropy of integers, sigmoid cross-entropy of truths,
        squared error of floats.
      names: of what is in a batch, where batches are dicts: ("signal", "label").
      held_out_batches: at most so many are held out, the first. They are read once before
        any work, which counts them and finds what is wrong with them.
      metrics: figures of one's own, see `tasks.arrays`.

    Returns:
      A task. Numbers are seen as they come: standardise them in the reader. A sweep
      cannot use it.

    Raises:
      TypeError, ValueError: a reader gives nothing, or something else than said above: of
        the first batch and of those held out before any work, else where it is read.

    >>> import numpy as np
    >>> def make():
    ...     rng = np.random.default_rng(0)
    ...     for _ in range(100):
    ...         xs = rng.normal(size=(8, 20, 3))
    ...         yield xs, (xs.sum((1, 2)) > 0).astype(int)
    >>> task = iterator(make, held_out=make, n_out=2)
    >>> task.n_in, task.n_out, task.held_out.length
    (3, 2, 100)
    """
    positive(held_out_batches=held_out_batches)
    for name, given in (("make", make), ("held_out", held_out)):
        if not callable(given) and not (given is None and name == "held_out"):
            raise TypeError(
                f"{name}: expected a function that opens a reader, got "
                f"{type(given).__name__}"
            )
    form = _form(first_of(make), n_in, n_out, per_step, objective, names)
    item = _items(form, objective)
    train = Reader(make, item)
    train(0, 1)
    if held_out is None:
        warnings.warn(
            f"held_out: nothing is held out; what is called so are the first {FEW} batches "
            "that are trained on",
            stacklevel=3,
        )
    rest = Reader(make if held_out is None else held_out, _named(item, held_out))
    length = rest.count(
        min(FEW, held_out_batches) if held_out is None else held_out_batches
    )
    masked = form.lengths
    batch = batch_of(
        following=False, single=not form.per_step, masked=masked, full=not masked
    )
    return Task(
        n_in=form.n_in,
        n_out=form.n_out,
        objective=form.form if objective is None else objective,
        train=Stream(train, batch, None, place=train.place()),
        held_out=Stream(rest, batch, length),
        tokens=len(form.inputs) == 2,
        record=dict(task="iterator", inputs=form.inputs, targets=form.targets),
        encoding=Encoding(per_step=form.per_step),
        metrics=with_own(by_form(form.form), metrics),
    )


def _named(item: Callable, held_out: Any) -> Callable:
    """As it is of training batches, with words for where it was."""
    if held_out is None:
        return item

    def made(batch: Any, number: int):
        try:
            return item(batch, number)
        except (TypeError, ValueError) as error:
            raise type(error)(f"held_out: {error}") from None

    return made


# What a batch is


def _parts(batch: Any, names: tuple[str, ...] | None, where: str) -> list[np.ndarray]:
    """Inputs, targets and, where they are there, lengths."""
    if isinstance(batch, Mapping):
        if names is None:
            raise TypeError(
                f"{where}: expected (inputs, targets), got a dict; say which of "
                f"{', '.join(map(str, batch))} by names=(inputs, targets)"
            )
        if lacking := [name for name in names if name not in batch]:
            raise ValueError(
                f"{where}: has no {lacking[0]!r}, but {', '.join(map(str, batch))}"
            )
        batch = tuple(batch[name] for name in names)
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        what = f"{len(batch)} of them" if isinstance(batch, tuple | list) else ""
        raise TypeError(
            f"{where}: expected (inputs, targets) or (inputs, targets, lengths), got "
            f"{what or type(batch).__name__}"
        )
    kinds = ("inputs", "targets", "lengths")
    return [_numbers(f"{where}: {k}", a) for k, a in zip(kinds, batch, strict=False)]


def _numbers(what: str, given: Any) -> np.ndarray:
    try:
        a = np.asarray(given)
    except ValueError:
        a = np.empty(0, object)
    if a.dtype == object or is_text(a) or a.dtype.kind not in "biuf":
        kind = "text" if is_text(a) else f"dtype {a.dtype}"
        rows = " (rows of unequal lengths?)" if a.dtype == object else ""
        raise TypeError(f"{what}: expected an array of numbers, got {kind}{rows}")
    return a


def _form(first, n_in, n_out, per_step, objective, names) -> Form:
    where = "batch 0"
    found = _parts(first, names, where)
    xs, targets = _inputs(found[0]), found[1]
    if xs.ndim < 2 or not xs.size:
        raise ValueError(
            f"{where}: inputs: expected [B, T, ...], got {list(found[0].shape)}"
        )
    B, T = xs.shape[:2]
    form = _objective_of(targets, objective)
    steps = _per_step(targets, (B, T), form, per_step)
    shaped = _targets(targets, steps, form)
    sizes = dict(
        n_in=_n_in(xs, n_in), n_out=_n_out(xs, shaped, steps, form, n_in, n_out)
    )
    return Form(
        xs.shape, shaped.shape, steps, form, len(found) == 3, **sizes, names=names
    )


def _inputs(a: np.ndarray) -> np.ndarray:
    """float32 features `[B, T, F]`, or int32 symbols `[B, T]`."""
    if a.ndim == 2 and a.dtype.kind in "iu":
        return a.astype(np.int32)
    if a.ndim < 2:
        return a
    return a.reshape(*a.shape[:2], -1).astype(np.float32)


def _objective_of(targets: np.ndarray, objective: Objective | None) -> Objective:
    if objective is not None and is_known(objective):
        if objective is LABELS and targets.dtype.kind not in "iu":
            raise TypeError(
                f"batch 0: targets: {targets.dtype}, and objectives.{OBJECTIVES[LABELS]} "
                "compares with integers"
            )
        return objective
    if is_float(targets):
        return NUMBERS
    return TRUTHS if targets.dtype == bool else LABELS


def _per_step(targets, sizes, form: Objective, per_step: bool | None) -> bool:
    """Whether each step has a target, by shapes where nobody says it."""
    B, T = sizes
    of_labels = form is LABELS
    single = targets.shape[:1] == (B,) and targets.ndim <= (1 if of_labels else 2)
    steps = targets.shape[:2] == (B, T) and targets.ndim <= (2 if of_labels else 3)
    if per_step is None and single and steps:
        raise ValueError(
            f"batch 0: targets: {list(targets.shape)} may be {T} numbers a sequence or one "
            "a step; say per_step=False or per_step=True"
        )
    if not (single or steps) or (
        per_step is not None and not (single, steps)[per_step]
    ):
        more = "" if of_labels else f", [{B}, outputs], [{B}, {T}, outputs]"
        raise ValueError(
            f"batch 0: targets: expected [{B}], [{B}, {T}]{more}"
            f"{'' if per_step is None else f' and per_step={per_step}'}, got "
            f"{list(targets.shape)}"
        )
    return steps if per_step is None else bool(per_step)


def _targets(a: np.ndarray, per_step: bool, form: Objective) -> np.ndarray:
    if form is LABELS:
        return a.astype(np.int32)
    a = a if a.ndim > 1 + per_step else a[..., None]
    return a.astype(np.float32)


def _n_in(xs: np.ndarray, n_in: int | None) -> int:
    if xs.ndim == 3:
        if n_in not in (None, xs.shape[2]):
            raise ValueError(f"n_in: inputs have {xs.shape[2]} features, got {n_in}")
        return xs.shape[2]
    if n_in is None:
        raise ValueError(
            f"n_in: inputs are integers {list(xs.shape)}, which are symbols; say how many "
            "there are (numbers are given as [B, T, 1])"
        )
    positive(n_in=n_in)
    return int(n_in)


def _n_out(xs, targets, per_step: bool, form: Objective, n_in, n_out) -> int:
    if form is not LABELS:
        outputs = targets.shape[-1]
        if n_out not in (None, outputs):
            raise ValueError(f"n_out: targets have {outputs} outputs, got {n_out}")
        return outputs
    if n_out is None and per_step and xs.ndim == 2:
        n_out = n_in
    if n_out is None:
        raise ValueError("n_out: targets are labels; say how many classes there are")
    positive(n_out=n_out)
    return int(n_out)


def _items(form: Form, objective: Objective | None) -> Callable[[Any, int], Padded]:
    """`(batch, number) -> Padded`, or a line about what is wrong with it."""

    def item(batch: Any, number: int) -> Padded:
        where = f"batch {number}"
        found = _parts(batch, form.names, where)
        if (len(found) == 3) != form.lengths:
            raise ValueError(
                f"{where}: {'has no lengths' if form.lengths else 'has lengths'}, and "
                "the first batch is not so"
            )
        xs, targets = _inputs(found[0]), found[1]
        _same(where, "inputs", xs.shape, form.inputs)
        B, T = form.inputs[:2]
        lengths = np.full(B, T, np.int32)
        if form.lengths:
            lengths = _lengths(where, found[2], B, T)
        real = np.arange(T) < lengths[:, None]
        of_inputs = LABELS if xs.ndim == 2 else NUMBERS
        _refuse(f"{where}: inputs", xs, real, *_between(of_inputs, form.n_in))
        kind = targets.dtype.kind
        if (form.form is LABELS) != (kind in "iu") and objective is None:
            raise TypeError(
                f"{where}: targets: {targets.dtype}, unlike those of batch 0"
            )
        targets = _targets(targets, form.per_step, form.form)
        _same(where, "targets", targets.shape, form.targets)
        counts = real if form.per_step else lengths > 0
        _refuse(f"{where}: targets", targets, counts, *_between(form.form, form.n_out))
        if form.per_step:
            targets = np.swapaxes(targets, 0, 1)
        return Padded(np.swapaxes(xs, 0, 1), lengths, targets)

    return item


def _same(where: str, what: str, shape: tuple, first: tuple) -> None:
    if shape != first:
        raise ValueError(
            f"{where}: {what} {list(shape)}, and those of the first batch {list(first)}; all "
            "batches have one shape: leave out what fills none (drop_last, drop_remainder)"
        )


def _lengths(where: str, a: np.ndarray, B: int, T: int) -> np.ndarray:
    if a.shape != (B,) or a.dtype.kind not in "iu" or (a < 0).any() or (a > T).any():
        raise ValueError(
            f"{where}: lengths: expected integers [{B}] from 0 to {T}, got {a.dtype} "
            f"{list(a.shape)}{f' from {a.min()} to {a.max()}' if a.size else ''}"
        )
    return a.astype(np.int32)


def _between(form: Objective, n: int) -> tuple[float, float, str]:
    if form is LABELS:
        return 0, n - 1, f"integers from 0 to {n - 1}"
    if form is TRUTHS:
        return 0, 1, "numbers from 0 to 1"
    return -np.inf, np.inf, "finite numbers"


def _refuse(
    what: str, a: np.ndarray, counts: np.ndarray, low: float, high: float, expected: str
) -> None:
    """Refuses what counts and is not finite and between the two, by its place."""
    fine = np.isfinite(a) & (a >= low) & (a <= high)
    bad = ~fine.reshape(*counts.shape, -1) & counts[..., None]
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        value = a.reshape(bad.shape)[at]
        raise ValueError(
            f"{what}: {value} at {list(at)[: a.ndim]}; expected {expected}"
        )
