"""A task from somebody's own arrays.

The data set is cut into a training and a held-out part; what is learnt from the data (their
scale, the classes) is learnt from the training part.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bptt_jax._factory import remembered
from bptt_jax.tasks._constant import baselines_of, counted
from bptt_jax.tasks._contexts import contexts_of
from bptt_jax.tasks._epochs import held_out_size
from bptt_jax.tasks._given import Given, given_of, refuse_options
from bptt_jax.tasks._metrics import of_arrays, of_symbols, with_own
from bptt_jax.tasks._padded import Data, stream
from bptt_jax.tasks._sequences import Sequences, digest, is_float, scale_of, scaled
from bptt_jax.tasks._split import split
from bptt_jax.tasks._targets import LABELS, NUMBERS, classes_of, weights_of
from bptt_jax.types import Encoding, Metric, Objective, Task

_SPLIT, _ORDER, _HELD_OUT_ORDER = range(3)


@remembered
def arrays(
    inputs: Any,
    targets: Any = None,
    *,
    batch: int,
    held_out: Any = 0.1,
    groups: Any = None,
    weights: Any = None,
    per_step: bool | None = None,
    objective: Objective | None = None,
    standardise: bool = True,
    metrics: Mapping[str, Any] | None = None,
    context: Any = None,
    seed: int = 0,
) -> Task:
    """A data set of one's own as a task; sequences come first, as data sets have them.

    A class or a number a sequence is compared with the output at its last real step. In
    each epoch every training sequence is there once, in an order that is a function of
    `seed` and the epoch, and an evaluation has every held-out sequence once; rows of the
    last batch may be empty. Sequences of like lengths are batched together: training and
    evaluation run at most four numbers of steps (`Stream.buckets`). Nothing is read of
    what is padded. The arrays are copied, inputs in float32, and may be changed afterwards.

    Args:
      inputs: `[N, T, ...]`, or a list of N arrays `[T, ...]` of unequal lengths. Floats,
        truths, and integers with an axis of features are features (several axes are
        joined to one); integers `[N, T]` are symbols, from 0 on; floats `[N, T]` are one
        feature. Or a dictionary of such, as `layers.inputs` takes it: the same sequences,
        seen in several ways.
      targets: one a sequence, `[N]` or `[N, O]`, one a step, `[N, T]` or `[N, T, O]`, or a
        list of N; labels may be integers, truths or text of any values, and are numbered
        in their order (`Task.encoding.classes`). None: the next input.
      batch: sequences of a training batch, B.
      held_out: the share that is held out, in (0, 1), of each class if targets are labels or
        truths of sequences; the indices `[n]` of the held-out sequences, or bool `[N]`; or a
        held-out part of one's own, `(inputs, targets)`.
      groups: `[N]`, whose a sequence is (a person, a machine): none has sequences on both
        sides. Shares of classes are then as near as groups let them be.
      weights: how much a sequence counts, `[N]`; a step, `[N, T]` or a list of N (of the
        next inputs: the weight of a step that is predicted); or a class, label -> weight.
        In the held-out loss, too; a held-out part of one's own has weights by class, or 1.
      per_step: whether each step has a target; None: what shapes say. Floats `[N, T]` may
        be either, and are refused.
      objective: None: softmax cross-entropy of labels and integers, sigmoid cross-entropy
        of truths, squared error of floats. With one of these three targets may have
        another dtype (integers and the squared error, say); one of one's own is given
        what the one for this dtype would be.
      standardise: features that are numbers have mean 0 and deviation 1 over all steps of
        the training part, each by itself, and so have floating targets under the squared
        error; `Task.encoding` has both scales.
      metrics: figures of one's own, told beside the loss: name -> `f(ys, targets) ->
        [K, ...]`, whose mean over the steps that count is told, `(f, finish)` where the
        figure is a function of that mean, or a `types.Metric`. Targets as the objective
        is given them.
      context: what is known of each sequence beside its steps, `[N, ...]`, or a dictionary of
        such; numbers as they are, in float32, or int32. It is `Batch.context`, for a model
        that sees one.
      seed: of the split and of the order.

    Returns:
      A task whose `n_in` and `n_out` are what a model needs; of a dictionary `n_in` is one,
      and `tokens` are the names of those that are symbols. Losses are those of
      standardised targets; baselines are what the best constant costs, in the same unit.
      `Task.metrics` have the accuracy of labels and truths, MAE and RMSE of numbers in the
      unit of the data, bits and perplexity of symbols that are predicted.

    Raises:
      TypeError, ValueError: the data are not of such a form, by argument and place.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> signals = [rng.normal(size=(n, 3)) for n in rng.integers(5, 30, 200)]
    >>> labels = ["up" if signal.sum() > 0 else "down" for signal in signals]
    >>> task = arrays(signals, labels, batch=20)
    >>> task.n_in, task.n_out, task.encoding.classes, task.train.length
    (3, 2, ('down', 'up'), 9)
    """
    refuse_options(objective, seed, batch=batch)
    given = given_of(inputs, targets, held_out, objective, per_step)
    out = _split(given, held_out, groups, seed)
    held = np.flatnonzero(out)
    size = held_out_size(batch, len(out) - len(held), len(held), "sequences")
    data, encoding = _encoded(given, out, objective, standardise)
    data = data._replace(
        weights=_weights(given, out, weights), context=_context(given, context)
    )
    n_in, n_out = _sizes(data, encoding)
    return Task(
        n_in=n_in,
        n_out=n_out,
        objective=given.form if objective is None else objective,
        train=stream(data, np.flatnonzero(~out), batch, (seed, _ORDER), True),
        held_out=stream(data, held, size, (seed, _HELD_OUT_ORDER), False),
        tokens=_symbols(data.inputs.joined),
        baselines=baselines_of(data, given.form, objective, n_out, out),
        record=dict(task="arrays", sha256=digest((data, out)), seed=seed),
        encoding=encoding,
        metrics=with_own(_metrics(data, encoding, given, objective, out), metrics),
    )


def _metrics(
    data: Data, encoding: Encoding, given: Given, objective: Any, out: np.ndarray
) -> dict[str, Metric]:
    """Of outputs that mean what those of this library's objectives mean."""
    if objective not in (None, given.form):
        return {}
    of_symbols_too = {}
    if given.targets is None and given.form is LABELS:
        of_symbols_too = of_symbols("bits per symbol")
    parts = counted(data, ~out), counted(data, out)
    return of_symbols_too | of_arrays(given.form, encoding.targets, *parts)


def _split(given: Given, held_out: Any, groups: Any, seed: int) -> np.ndarray:
    """bool `[N]`, which sequences are held out."""
    N = len(given.inputs.lengths)
    if given.own:
        if groups is not None:
            raise ValueError(
                "groups: expected none where held_out is (inputs, targets)"
            )
        return np.arange(N) >= N - given.own
    single = given.targets is not None and not given.targets.per_step
    labels = given.labels if single else None
    rng = np.random.default_rng((seed, _SPLIT))
    return split(held_out, N, labels, groups, rng)


def _encoded(
    given: Given, out: np.ndarray, objective: Objective | None, standardise: bool
) -> tuple[Data, Encoding]:
    """What batches are made of, by what the training part says."""
    xs, found = given.inputs, given.targets
    train = xs.over_steps(~out)
    of_inputs, joined = _scaled(xs.joined, train, standardise)
    xs = xs._replace(joined=joined)
    if found is None:
        of_targets = of_inputs if given.form is NUMBERS else None
        return Data(xs, None, None), Encoding(of_inputs, of_targets)
    train = train if found.per_step else ~out
    values, of_targets, classes = found.values, None, None
    if given.form is LABELS:
        labels = classes_of(values, train)
        values, classes = np.searchsorted(labels, values), tuple(labels.tolist())
        values = values.astype(np.int32)
    else:
        if standardise and is_float(values) and objective in (None, NUMBERS):
            of_targets = scale_of(values, train)
        values = scaled(values, of_targets)
    encoding = Encoding(of_inputs, of_targets, classes, found.per_step, found.shape)
    compared = Sequences.of(values, xs.lengths) if found.per_step else values
    return Data(xs, compared, None), encoding


def _scaled(joined: Any, train: np.ndarray, standardise: bool) -> tuple[Any, Any]:
    """The scale of inputs, and these by it; of each of a dictionary."""
    if isinstance(joined, dict):
        each = {key: _scaled(a, train, standardise) for key, a in joined.items()}
        scales, found = ({key: each[key][k] for key in each} for k in (0, 1))
        return scales, found
    if joined.ndim == 1:
        return None, joined
    of = scale_of(joined, train) if standardise and joined.dtype != bool else None
    return of, scaled(joined, of)


def _symbols(joined: Any) -> bool | tuple[str, ...]:
    """Whether inputs are symbols; which of them are."""
    if isinstance(joined, dict):
        return tuple(key for key, a in joined.items() if a.ndim == 1)
    return joined.ndim == 1


def _context(given: Given, context: Any) -> Any:
    if context is None:
        return None
    if given.own:
        raise ValueError(
            "context: expected none where held_out is (inputs, targets); join the parts and "
            "give the indices of what is held out"
        )
    return contexts_of("context", context, len(given.inputs.lengths))


def _weights(given: Given, out: np.ndarray, weights: Any):
    """Of sequences `[N]` or of steps; None where all count alike."""
    if weights is None:
        return None
    lengths, own = given.inputs.lengths, given.own
    by_class = isinstance(weights, dict)
    some = lengths if by_class else lengths[: len(lengths) - own]
    per_step = given.targets is None or given.targets.per_step
    found = weights_of(weights, per_step, given.labels, some)
    of_steps = per_step and len(found) == some.sum() != len(some)
    if own and not by_class:
        more = lengths[len(some) :].sum() if of_steps else own
        found = np.concatenate([found, np.ones(more, np.float32)])
    return Sequences.of(found, lengths) if of_steps else found


def _size(joined: Any) -> Any:
    if isinstance(joined, dict):
        return {key: _size(a) for key, a in joined.items()}
    return joined.shape[1] if joined.ndim > 1 else int(joined.max()) + 1


def _sizes(data: Data, encoding: Encoding) -> tuple[Any, int]:
    """`n_in` and `n_out`."""
    n_in = _size(data.inputs.joined)
    if encoding.classes is not None:
        return n_in, len(encoding.classes)
    if data.targets is None:
        return n_in, n_in
    values = data.targets
    return n_in, (values.joined if isinstance(values, Sequences) else values).shape[1]
