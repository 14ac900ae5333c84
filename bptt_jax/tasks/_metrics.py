"""Figures that are told beside the loss: those a task has by itself, and one's own."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from bptt_jax import objectives
from bptt_jax.tasks._targets import LABELS, NUMBERS
from bptt_jax.types import Metric, Objective, Scale

SHARE = "share that is right"
OF_DATA = "unit of the data"
TAKEN = (
    "loss", "held_out", "grad_norm", "update_norm", "real", "config", "rung", "step",
    "diverged_at",
)  # fmt: skip
"""What lines and tables have by these names."""


def with_own(found: dict[str, Metric], own: Any) -> dict[str, Metric]:
    """The metrics of a task, and one's own beside or instead of them.

    Args:
      own: name -> a function `(ys, targets) -> [K, ...]`, whose mean is told, or
        `(function, finish)`, or a `Metric`; None: none.
    """
    if own is None:
        return found
    if not isinstance(own, Mapping):
        raise TypeError(
            f"metrics: expected a function by its name, got {type(own).__name__}"
        )
    return found | {name: _metric(name, given) for name, given in own.items()}


def _metric(name: Any, given: Any) -> Metric:
    if not isinstance(name, str) or not name or name in TAKEN:
        raise ValueError(
            f"metrics: expected names other than {', '.join(TAKEN)}, got {name!r}"
        )
    if callable(given):
        return Metric(given)
    if isinstance(given, tuple) and len(given) == 2 and all(map(callable, given)):
        return Metric(*given)
    if isinstance(given, Metric) and callable(given.each) and callable(given.finish):
        return given
    raise TypeError(
        f"metrics[{name!r}]: expected a function (ys, targets) -> [K, ...], or (function, "
        f"finish), got {type(given).__name__}"
    )


# What tasks have


def of_arrays(
    form: Objective,
    scale: Scale | None,
    train: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
) -> dict[str, Metric]:
    """Accuracy of classes and truths, errors of numbers, beside the best constant's.

    Args:
      form: the objective of this library that the outputs are compared with.
      scale: of the targets, where they are standardised numbers.
      train, held_out: `(values [n, ...], weights [n])` of all that is compared.
    """
    values, weights = train
    if form is NUMBERS:
        return _of_numbers(scale, np.average(values, axis=0, weights=weights), held_out)
    if form is LABELS:
        most = np.bincount(values, weights).argmax()
        right = held_out[0] == most
        each, baseline = _right, "most frequent class"
    else:
        most = np.average(values, axis=0, weights=weights) > 0.5
        right = ((held_out[0] > 0.5) == most).mean(1)
        each, baseline = _truths_right, "most frequent truth"
    of_constant = float(np.average(right, weights=held_out[1]))
    return {"accuracy": Metric(each, float, {baseline: of_constant}, SHARE)}


def by_form(form: Objective) -> dict[str, Metric]:
    """As `of_arrays` has them, of data that are not here: with nothing beside them."""
    if form is LABELS:
        return {"accuracy": Metric(_right, float, {}, SHARE)}
    if form is not NUMBERS:
        return {"accuracy": Metric(_truths_right, float, {}, SHARE)}
    one = np.ones((), np.float32)
    return {
        name: Metric(_of_errors(of, one), finish, {}, OF_DATA)
        for name, (of, finish) in _ERRORS.items()
    }


def _right(logits, labels):
    """Of each step whether the most probable class is the right one."""
    return logits.argmax(-1) == labels


def _truths_right(logits, truths):
    """Of each step the share of its truths that are right."""
    return ((logits > 0) == (jnp.asarray(truths) > 0.5)).mean(-1, dtype=jnp.float32)


def _of_numbers(scale: Scale | None, mean: np.ndarray, held_out) -> dict[str, Metric]:
    values, weights = held_out
    deviation = np.ones(len(mean)) if scale is None else np.array(scale.deviation)
    errors = (values - mean) * deviation
    return {
        name: Metric(
            _of_errors(of, deviation.astype(np.float32)),
            finish,
            {"mean": finish(float(np.average(of(errors), weights=weights)))},
            OF_DATA,
        )
        for name, (of, finish) in _ERRORS.items()
    }


_ERRORS: dict[str, tuple[Callable, Callable]] = {
    "MAE": (lambda errors: abs(errors).mean(-1), float),
    "RMSE": (lambda errors: (errors**2).mean(-1), math.sqrt),
}


def _of_errors(of: Callable, deviation: np.ndarray) -> Callable:
    def each(ys, targets):
        wide = ys.astype(jnp.promote_types(ys.dtype, jnp.float32))
        return of((wide - targets) * jnp.asarray(deviation, wide.dtype))

    return each


def of_symbols(unit: str, characters: np.ndarray | None = None) -> dict[str, Metric]:
    """Bits and perplexity of a model that predicts symbols.

    Args:
      unit: what bits are counted per: "bits per character".
      characters: `[V]`, how many of these a symbol is; None: one each.
    """
    if characters is None:
        each, bits = objectives.softmax_cross_entropy, lambda nats: nats / math.log(2)
    else:
        each, bits = _nats_and_characters(characters), _bits_per_character
    perplexity = Metric(objectives.softmax_cross_entropy, _exponential, {}, "symbols")
    return {unit: Metric(each, bits), "perplexity": perplexity}


def _nats_and_characters(characters: np.ndarray) -> Callable:
    of_symbols = np.asarray(characters, np.float32)

    def each(logits, symbols):
        nats = objectives.softmax_cross_entropy(logits, symbols)
        return dict(nats=nats, characters=jnp.asarray(of_symbols)[symbols])

    return each


def _bits_per_character(mean: dict[str, float]) -> float:
    if not mean["characters"]:
        return math.inf
    return mean["nats"] / mean["characters"] / math.log(2)


def _exponential(nats: float) -> float:
    """Infinite where it is too large for a number."""
    with np.errstate(over="ignore"):
        return float(np.exp(nats))
