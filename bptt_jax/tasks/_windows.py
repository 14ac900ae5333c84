"""A task from series of numbers: what comes next, several steps at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bptt_jax import objectives
from bptt_jax._factory import is_whole, remembered
from bptt_jax.tasks._cuts import Cuts, cuts_of
from bptt_jax.tasks._epochs import held_out_size, reader
from bptt_jax.tasks._forecasts import (
    Ahead,
    figures_of,
    metrics_of_values,
    naive_of,
    of_values,
)
from bptt_jax.tasks._given import refuse_options
from bptt_jax.tasks._metrics import with_own
from bptt_jax.tasks._padded import Padded, batch_of
from bptt_jax.tasks._sequences import (
    Sequences,
    array,
    digest,
    is_text,
    refuse_not_finite,
    scale_of,
    scaled,
    sequences,
)
from bptt_jax.types import Encoding, Objective, Scale, Stream, Task

_ORDER, _HELD_OUT_ORDER = range(2)


@remembered
def windows(
    series: Any,
    *,
    T: int,
    horizon: int,
    batch: int,
    stride: int = 1,
    season: int | None = None,
    targets: Sequence[int] | None = None,
    held_out: float | int = 0.1,
    objective: Objective | None = None,
    standardise: bool = True,
    metrics: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Task:
    """Series of numbers as a task: after T steps the next `horizon` are predicted at once.

    The end of each series is held out. A window, T steps and the `horizon` after them, belongs
    to the part that has all of its targets; one whose targets are on both sides is left out,
    and inputs of a held-out window may reach back into the training part. In each epoch every
    training window is there once, in an order that is a function of `seed` and the epoch, and
    an evaluation has every held-out window once; rows of the last batch may be empty. Windows
    are cut when a batch is read; the series are copied once, in float32.

    Args:
      series: `[time, features]` or `[time]`, or a list of such of unequal lengths with the
        same features.
      T: steps of a window that a model sees.
      horizon: steps that it predicts, from the output at the last of the T.
      batch: windows of a training batch, B.
      stride: steps from one window to the next. Training windows are counted back from the
        end of the training part, held-out ones from where it ends.
      season: steps after which a series repeats itself (12 of months, 24 of hours): for a
        simple forecast to compare with, and as what errors are scaled by in MASE; None: 1.
      targets: which features are predicted, by their numbers; None: all.
      held_out: the share of each series that is held out, in (0, 1), or a number of steps.
      objective: None: squared error. One of one's own, `(ys, targets) -> [K, ...]`, is given
        both as `[..., horizon · O]`.
      standardise: features have mean 0 and deviation 1 over the training part of all series,
        each by itself; `Task.encoding` has the scales.
      metrics: figures of one's own beside these, as of `tasks.arrays`; `ys` and targets
        are both standardised, `[..., horizon · O]`.
      seed: of the order.

    Returns:
      A task with inputs `[T, B, features]` and `Weighted` targets, of which those at the last
      step count: `values [T, B, horizon · O]`, O features of one step after those of the
      other, and `series [T, B]`, the number of the series. Its loss is of standardised
      numbers; `Task.metrics` are MAE, RMSE and MASE in the unit of the data, means over all
      targets, beside those of the last value and of the last season. MASE is not finite
      where a training part is the same after every season.

    Raises:
      TypeError, ValueError: the data are not of such a form, or too short, by the place.

    >>> import numpy as np
    >>> months = np.arange(240)
    >>> sales = 100 + months + 30 * np.sin(2 * np.pi * months / 12)
    >>> task = windows(sales, T=24, horizon=6, season=12, batch=16)
    >>> task.n_in, task.n_out, task.train.length
    (1, 6, 12)
    >>> {of: round(mae, 2) for of, mae in task.metrics["MAE"].baselines.items()}
    {'last value': 27.39, 'seasonal naive': 12.0}
    """
    refuse_options(
        objective, seed, T=T, horizon=horizon, batch=batch, stride=stride,
        season=1 if season is None else season,
    )  # fmt: skip
    given = _series(series)
    columns = _columns(targets, given.joined.shape[1])
    held = _held(held_out, given.lengths)
    train, out = cuts_of(given, held, T, horizon, stride)
    known = given.lengths - held
    _refuse_season(season, known)
    size = held_out_size(batch, train.total, out.total, "windows")

    scale = _scale(given, known) if standardise else None
    of_targets = None if scale is None else Scale(*(_chosen(a, columns) for a in scale))
    data = given._replace(joined=scaled(given.joined, scale))
    values = given._replace(joined=given.joined[:, columns])
    naive = naive_of(values, known, season or 1)
    found, losses = figures_of(values, naive, out, T, horizon, season, of_targets)
    streams = [
        _stream(data, columns, part, T, horizon, rows, (seed, order), order == _ORDER)
        for part, rows, order in [(train, batch, _ORDER), (out, size, _HELD_OUT_ORDER)]
    ]
    objective = objectives.squared_error if objective is None else objective
    sha256 = digest((data, columns, train, out))
    return Task(
        n_in=given.joined.shape[1],
        n_out=horizon * len(columns),
        objective=of_values(objective),
        train=streams[0],
        held_out=streams[1],
        baselines=losses if objective is objectives.squared_error else {},
        record=dict(task="windows", sha256=sha256, T=T, horizon=horizon, seed=seed),
        encoding=Encoding(
            scale,
            of_targets and Scale(*(a * horizon for a in of_targets)),
            per_step=False,
            shape=(horizon, len(columns)) if _has_features(series) else (horizon,),
            naive=dict(enumerate(map(tuple, naive.tolist()))),
        ),
        metrics=found | metrics_of_values(with_own({}, metrics)),
    )


def _series(given: Any) -> Sequences:
    """Numbers `[M, F]`, of all series."""
    if isinstance(given, list | tuple):
        found = sequences("series", given)
    else:
        whole = array("series", given)
        if whole.ndim not in (1, 2):
            raise ValueError(
                "series: expected [time, features] or a list of such, got "
                f"{list(whole.shape)}"
            )
        found = Sequences.of(whole, np.array([len(whole)]))
    joined = found.joined
    if is_text(joined):
        raise TypeError(
            "series: expected numbers, got text; leave out columns of names and dates"
        )
    if not found.lengths.all():
        raise ValueError(f"series[{int(found.lengths.argmin())}]: no steps")
    found = found._replace(joined=joined.reshape(len(joined), -1))
    if not found.joined.shape[1]:
        raise ValueError("series: expected at least one feature, got none")
    refuse_not_finite("series", found)
    return found


def _has_features(given: Any) -> bool:
    """Whether series are `[time, features]`."""
    return np.ndim(given[0] if isinstance(given, list | tuple) else given) > 1


def _columns(targets: Any, features: int) -> np.ndarray:
    """int64 `[O]`, which features are predicted."""
    if targets is None:
        return np.arange(features)
    found = array("targets", targets)
    if found.ndim != 1 or found.dtype.kind not in "iu" or not len(found):
        raise ValueError(
            "targets: expected numbers of features [O], got "
            f"{found.dtype} of shape {list(found.shape)}"
        )
    outside = (found < 0) | (found >= features)
    if outside.any():
        raise ValueError(
            f"targets: expected features from 0 to {features - 1}, got "
            f"{found[outside.argmax()]}"
        )
    if len(np.unique(found)) < len(found):
        raise ValueError(f"targets: expected each once, got {found.tolist()}")
    return found.astype(np.int64)


def _held(held_out: Any, lengths: np.ndarray) -> np.ndarray:
    """int64 `[S]`, steps of each series that are held out."""
    if is_whole(held_out) and held_out > 0:
        return np.minimum(held_out, lengths)
    if not isinstance(held_out, float) or not 0 < held_out < 1:
        raise ValueError(
            "held_out: expected a share in (0, 1), or a number of steps of at least 1, got "
            f"{held_out!r}"
        )
    return np.round(held_out * lengths).astype(np.int64)


def _scale(series: Sequences, known: np.ndarray) -> Scale:
    """Of each feature, over the first steps of each series, so many."""
    each = zip(series.lengths, known, strict=True)
    return scale_of(series.joined, np.concatenate([np.arange(n) < k for n, k in each]))


def _chosen(of_features: tuple, columns: np.ndarray) -> tuple:
    return tuple(of_features[i] for i in columns)


def _refuse_season(season: int | None, known: np.ndarray) -> None:
    if season is not None and season >= known.min():
        raise ValueError(
            f"season: {season}, and the training part of series[{int(known.argmin())}] has "
            f"{known.min()} steps; expected fewer than that"
        )


def _stream(
    data: Sequences, columns: np.ndarray, cuts: Cuts, T: int, horizon: int, size: int,
    seed: tuple[int, ...], epochs: bool,
) -> Stream:  # fmt: skip
    """Windows of a part, each of them once in an epoch; arguments as of `_padded.stream`."""
    steps = np.arange(T)[:, None]
    ahead = T + np.arange(horizon)

    def made(rows: np.ndarray) -> Padded:
        begins, which = cuts.at(np.maximum(rows, 0))
        after = data.joined[begins[:, None] + ahead][..., columns]
        return Padded(
            data.joined[begins + steps],
            np.where(rows < 0, 0, T).astype(np.int32),
            Ahead(after.reshape(size, -1), which.astype(np.int32)),
        )

    n = cuts.total
    read = reader(np.broadcast_to(T, n), size, (T,), seed, epochs, made)
    full = n % size == 0
    batch = batch_of(following=False, single=True, masked=False, full=full)
    return Stream(read, batch, -(-n // size))
