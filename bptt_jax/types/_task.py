"""What is to be learnt."""

from typing import Any, NamedTuple, Protocol

from jax import Array

from bptt_jax import _deprecated
from bptt_jax._factory import record
from bptt_jax.types._pytree import PyTree
from bptt_jax.types._stream import Stream
from bptt_jax.types._text import Text


class Objective(Protocol):
    """The losses of steps, see `bptt_jax.objectives`.

    Args:
      ys: outputs, `[K, ..., O]`.
      targets: what they are compared with, leaves `[K, ...]`.

    Returns:
      losses `[K, ...]`, one of each step and example; in nats where it is a
      cross-entropy.
    """

    def __call__(self, ys: Array, targets: PyTree, /) -> Array: ...


class Scale(NamedTuple):
    """How numbers are standardised, `(a - mean) / deviation`, each feature by its own."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class Encoding(NamedTuple):
    """What stands between somebody's data and what a model sees, and the way back.

    inputs: scale of the features, or of each of a dictionary of inputs; None: they are seen
        as they are.
    targets: scale of the numbers that outputs are compared with: an output y means
        `y * deviation + mean`.
    classes: the label of each output, where outputs are logits of classes.
    per_step: whether each step has a target; False: a sequence has one, at its last step.
    shape: of one target as it was given, `(horizon, features)` of a forecast, `()` of a
        number; None: as outputs are, `[O]`.
    naive: of a forecast, by the number of each series (a table's: by its name) the mean
        absolute error of the naive forecast in its training part, of each feature that is
        predicted: what MASE divides by; None: not known.
    """

    inputs: Any = None
    targets: Scale | None = None
    classes: tuple | None = None
    per_step: bool = True
    shape: tuple[int, ...] | None = None
    naive: dict[Any, tuple[float, ...]] | None = None


class MetricEach(Protocol):
    """What a figure is a function of the means of.

    Args:
      ys, targets: as of an `Objective`.

    Returns:
      numbers or truths `[K, ...]`, one of each step and example; or a tree of such, where
      a figure needs several means.
    """

    def __call__(self, ys: Array, targets: PyTree, /) -> PyTree: ...


class MetricFinish(Protocol):
    """A figure of a mean: the root of a mean square, say.

    Args:
      mean: over the steps that count, a number; where `each` gives a tree, a tree of such.

    Returns:
      The figure.
    """

    def __call__(self, mean: Any, /) -> float: ...


class Metric(NamedTuple):
    """A figure that is told beside the loss, see `train.evaluate`.

    each: a `MetricEach`.
    finish: a `MetricFinish`. A root belongs here: the mean of roots is another number.
    baselines: name of a simple predictor -> its figure on held-out data.
    unit: what it is in, where the name does not say so.
    """

    each: MetricEach
    finish: MetricFinish = float
    baselines: dict = {}
    unit: str = ""


def _text_of(symbols: tuple | None, others: dict) -> Text | None:
    if symbols is None:
        return None
    in_bytes = others.get("record", {}).get("encoding") == "bytes"
    return Text.by_symbols(symbols, in_bytes=in_bytes)


def _symbols_of(text: Text | None) -> tuple | None:
    return None if text is None else text.symbols


@_deprecated.field("symbols", "text", gone="0.3.0", into=_text_of, back=_symbols_of)
@record
class Task(NamedTuple):
    """What is to be learnt.

    n_in: features of an input, or how many symbols there are where inputs are `tokens`; of
        a dictionary of inputs one by each name.
    n_out: outputs of each step.
    objective: an `Objective`.
    train, held_out: streams; the second is read from its start at each evaluation.
    tokens: whether inputs are symbols (integers `[T, ...]`) rather than features; of a
        dictionary of inputs the names of those that are.
    stateful: whether consecutive batches continue each other (truncated BPTT).
    text: of the symbols, where a model of the task can write text.
    baselines: name of a simple predictor -> its loss per step on held-out data.
    record: what identifies the data (hash, versions), kept with a run.
    encoding: of data that were given as arrays.
    metrics: name -> `Metric`.
    """

    n_in: Any
    n_out: int
    objective: Objective
    train: Stream
    held_out: Stream
    tokens: bool | tuple[str, ...] = False
    stateful: bool = False
    text: Text | None = None
    baselines: dict = {}
    record: dict = {}
    encoding: Encoding | None = None
    metrics: dict = {}
