"""Somebody's own arrays in one form, or refused."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bptt_jax._factory import is_whole, positive
from bptt_jax.tasks._sequences import (
    Sequences,
    by_names,
    is_text,
    refuse_not_finite,
    sequences,
)
from bptt_jax.tasks._targets import (
    LABELS,
    NUMBERS,
    OBJECTIVES,
    TRUTHS,
    Targets,
    is_known,
    targets_of,
)
from bptt_jax.types import Objective

MOST_SYMBOLS = 2**20


class Given(NamedTuple):
    """What was given, in the form in which batches are made of it.

    inputs: features `[M, F]` or symbols `[M]`, of all sequences; or a dict of these.
    targets: of all sequences; None: the next inputs.
    form: the objective of this library that compares with such targets.
    own: how many of the sequences, the last ones, are a held-out part of one's own.
    """

    inputs: Sequences
    targets: Targets | None
    form: Objective
    own: int

    @property
    def labels(self) -> np.ndarray | None:
        """What may be weighed by class; None: nothing."""
        if self.targets is None:
            return self.inputs.joined if self.form is LABELS else None
        values = self.targets.values
        if self.form is LABELS:
            return values
        whole = values.dtype.kind in "biu" and values.shape[1] == 1
        return values[:, 0].astype(bool) if self.form is TRUTHS and whole else None


def refuse_options(objective: Any, seed: Any, **sizes: Any) -> None:
    """Refuses what is no objective, no seed, or no size."""
    positive(**sizes)
    if not is_whole(seed) or seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {seed!r}")
    if objective is not None and not callable(objective):
        raise TypeError(
            f"objective: expected a function, got {type(objective).__name__}"
        )


def given_of(
    inputs: Any, targets: Any, held_out: Any, objective: Any, per_step: bool | None
) -> Given:
    own = _own(held_out)
    if isinstance(inputs, Mapping) and targets is None:
        raise ValueError(
            "targets: expected some where inputs are a dictionary, got None; which of them "
            "is next to be predicted nobody says"
        )
    xs = _inputs("inputs", inputs, 1 + (targets is None))
    if targets is None:
        found, form = None, _following(xs, objective)
        if per_step is not None and not per_step:
            raise ValueError("per_step: the next inputs are one a step, got False")
    else:
        found = targets_of("targets", targets, xs.lengths, objective, per_step)
        form = found.form
    if own is None:
        return Given(xs, found, form, 0)
    more = _inputs("held_out[0]", own[0], 1 + (targets is None))
    _refuse_other_inputs(xs.joined, more.joined)
    if (own[1] is None) != (targets is None):
        raise ValueError(
            "held_out: expected (inputs, targets), targets None where those of training "
            f"are, got targets {'None' if own[1] is None else 'there'}"
        )
    if found is not None:
        last = targets_of(
            "held_out[1]", own[1], more.lengths, objective, found.per_step
        )
        if last.form is not form:
            raise TypeError(
                f"held_out[1]: expected {found.values.dtype}, as of targets, got "
                f"{last.values.dtype}"
            )
        _refuse_other("held_out[1]", "targets", found.values, last.values)
        joined = np.concatenate([found.values, last.values])
        found = found._replace(values=joined)
    return Given(xs.and_then(more), found, form, len(more.lengths))


def _own(held_out: Any) -> tuple | list | None:
    """`(inputs, targets)`, if `held_out` is such a pair."""
    pair = isinstance(held_out, tuple | list) and len(held_out) == 2
    return held_out if pair and not isinstance(held_out[0], int | float) else None


def _inputs(name: str, given: Any, least: int) -> Sequences:
    """Features `[M, F]` or symbols `[M]`; each sequence has so many steps at least."""
    if isinstance(given, Mapping):
        return by_names(name, given, functools.partial(_inputs, least=least))
    found = sequences(name, given)
    joined, lengths = found.joined, found.lengths
    if not len(lengths):
        raise ValueError(f"{name}: expected at least one sequence, got none")
    if lengths.min() < least:
        which, n = int(lengths.argmin()), lengths.min()
        steps = "1 step, and none after it to predict" if n else "no steps"
        raise ValueError(
            f"{name}: sequence {which} has {steps}; expected at least {least}"
        )
    if is_text(joined):
        raise TypeError(
            f"{name}: expected numbers, got text; give the number of each symbol, or "
            "tasks.text a text"
        )
    if joined.ndim == 1 and joined.dtype.kind in "iu":
        low, high = joined.min(), joined.max()
        if low < 0 or high >= MOST_SYMBOLS:
            raise ValueError(
                f"{name}: integers without an axis of features are symbols from 0 on, "
                f"fewer than {MOST_SYMBOLS:,}, got {low if low < 0 else high}; numbers "
                "are given as [N, T, 1]"
            )
        return found._replace(joined=joined.astype(np.int32))
    found = found._replace(joined=joined.reshape(len(joined), -1))
    refuse_not_finite(name, found)
    return found


def _following(xs: Sequences, objective: Objective | None) -> Objective:
    """The form of targets that are the next inputs."""
    kind = xs.joined.dtype.kind
    form = NUMBERS
    if xs.joined.ndim == 1:
        form = LABELS
    elif kind == "b" and objective is not NUMBERS:
        form = TRUTHS
    if objective is not None and objective is not form and is_known(objective):
        what = "symbols" if form is LABELS else xs.joined.dtype
        raise TypeError(
            f"objective: the next inputs are {what}, which objectives.{OBJECTIVES[form]} "
            f"compares with, got objectives.{OBJECTIVES[objective]}"
        )
    return form


def _refuse_other_inputs(a: Any, b: Any) -> None:
    """Where a held-out part has others than the training part."""
    if not isinstance(a, dict) and not isinstance(b, dict):
        return _refuse_other("held_out[0]", "inputs", a, b)
    names = [sorted(c) if isinstance(c, dict) else "an array" for c in (a, b)]
    if names[0] != names[1]:
        raise ValueError(
            f"held_out[0]: expected {names[0]}, as of inputs, got {names[1]}"
        )
    for key in a:
        _refuse_other(f"held_out[0][{key!r}]", f"inputs[{key!r}]", a[key], b[key])


def _refuse_other(name: str, of: str, a: np.ndarray, b: np.ndarray) -> None:
    if a.shape[1:] != b.shape[1:] or a.ndim != b.ndim:
        form = lambda c: (
            f"{c.shape[1]} values a step" if c.ndim > 1 else "single integers"
        )
        raise ValueError(f"{name}: expected {form(a)}, as of {of}, got {form(b)}")
    if is_text(a) != is_text(b):
        raise TypeError(f"{name}: expected {a.dtype}, as of {of}, got {b.dtype}")
