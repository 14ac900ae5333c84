"""What sequences are compared with: labels, truths or numbers, of sequences or of steps."""

from typing import Any, NamedTuple

import numpy as np

from bptt_jax import objectives
from bptt_jax.tasks._sequences import Sequences, array, is_float, is_text
from bptt_jax.types import Objective

LABELS = objectives.softmax_cross_entropy
TRUTHS = objectives.sigmoid_cross_entropy
NUMBERS = objectives.squared_error
OBJECTIVES = {
    LABELS: "softmax_cross_entropy",
    TRUTHS: "sigmoid_cross_entropy",
    NUMBERS: "squared_error",
}


class Targets(NamedTuple):
    """values: labels `[N]`, or truths or numbers `[N, O]`; where each step has one, those
        of all steps one after another.
    per_step: whether each step has one.
    form: the objective of this library that compares with such values.
    shape: of one of them, as it was given; that of a label is `()`.
    """

    values: np.ndarray
    per_step: bool
    form: Objective
    shape: tuple[int, ...] = ()


def targets_of(
    name: str,
    given: Any,
    lengths: np.ndarray,
    objective: Objective | None,
    per_step: bool | None,
) -> Targets:
    """Targets as they are given, `[N, ...]` or a list, for sequences of these lengths.

    Raises:
      TypeError, ValueError: a dtype or a shape does not fit; see `tasks.arrays`.
    """
    found = _stacked(name, given)
    if len(found) != len(lengths):
        raise ValueError(
            f"{name}: expected {len(lengths)}, one for each sequence, got {len(found)}"
        )
    one = (
        found if isinstance(found, np.ndarray) else np.concatenate([*map(_flat, found)])
    )
    form = _form(name, one, objective)
    single = form is LABELS
    fits = {True: _fits_steps(found, lengths, single), False: _fits(found, single)}
    if per_step is None:
        if all(fits.values()):
            raise ValueError(
                f"{name}: {[*map(len, (found, found[0]))]} may be {lengths[0]} numbers a sequence "
                "or one a step; say per_step=False or per_step=True"
            )
        if any(fits.values()):
            per_step = fits[True]
    if per_step is None or not fits[bool(per_step)]:
        raise ValueError(f"{name}: {_expected(found, lengths, single, per_step)}")
    joined = np.concatenate(list(found)) if per_step else np.asarray(found)
    values = joined.reshape(len(joined), *([] if single else [-1]))
    _refuse_values(name, values, form, lengths if per_step else None)
    shape = () if single else joined.shape[1:]
    return Targets(values, bool(per_step), form, shape)


def is_known(objective: Objective | None) -> bool:
    """Whether it is one of this library's; one of one's own need not have a hash."""
    return any(objective is one for one in OBJECTIVES)


def _flat(a: np.ndarray) -> np.ndarray:
    return a.reshape(-1)


def _stacked(name: str, given: Any) -> Any:
    """An array, or a list of arrays of unequal shapes."""
    if not isinstance(given, list | tuple):
        found = array(name, given)
        if not found.ndim:
            raise ValueError(f"{name}: expected one for each sequence, got one value")
        return found
    each = [array(f"{name}[{i}]", a) for i, a in enumerate(given)]
    if not each:
        raise ValueError(f"{name}: expected one for each sequence, got none")
    for i, a in enumerate(each):
        if is_text(a) != is_text(each[0]):
            raise TypeError(
                f"{name}[{i}]: expected {each[0].dtype}, as of {name}[0], got {a.dtype}"
            )
    return np.stack(each) if len({a.shape for a in each}) == 1 else each


def _form(name: str, values: np.ndarray, objective: Objective | None) -> Objective:
    """The objective, or the one of this library that compares with such a dtype."""
    if is_text(values):
        usual = LABELS
    elif is_float(values):
        usual = NUMBERS
    else:
        usual = TRUTHS if values.dtype == bool else LABELS
    form = objective if objective is not None and is_known(objective) else usual
    wrong = (form is LABELS and is_float(values)) or (
        form is not LABELS and is_text(values)
    )
    if wrong:
        kind = "integers, truths or text" if form is LABELS else "numbers"
        raise TypeError(
            f"{name}: {values.dtype}, and objectives.{OBJECTIVES[form]} compares with "
            f"{kind}; give targets or objective another way"
        )
    return form


def _fits(found: Any, single: bool) -> bool:
    """Whether each sequence may have one: a value, or, where not single, a vector."""
    if not isinstance(found, np.ndarray) or found.ndim > 2:
        return False
    return found.ndim == 1 or not single or found.shape[1] == 1


def _fits_steps(found: Any, lengths: np.ndarray, single: bool) -> bool:
    """Whether each step of each sequence may have one."""
    first = found[0]
    if not 1 <= first.ndim <= 2 or (single and first.ndim == 2 and first.shape[1] != 1):
        return False
    each = zip(found, lengths, strict=True)
    return all(
        a.ndim and len(a) == n and a.shape[1:] == first.shape[1:] for a, n in each
    )


def _expected(found: Any, lengths: np.ndarray, single: bool, per_step: Any) -> str:
    N = len(lengths)
    of_sequences = f"[{N}]" if single else f"[{N}] or [{N}, outputs]"
    if not isinstance(found, np.ndarray):
        for i, (a, n) in enumerate(zip(found, lengths, strict=True)):
            if a.shape[:1] != (n,):
                got = f"{list(a.shape)} of sequence {i}, which has {n} steps"
                return f"expected one for each step or {of_sequences}, got {got}"
    got = f"got {list(np.shape(found[0]))} a sequence"
    labels = "; labels are single, vectors are floats or truths" if single else ""
    wanted = {True: "one for each step", False: of_sequences}
    each = (
        wanted[bool(per_step)] if per_step is not None else " or ".join(wanted.values())
    )
    steps = (
        f"{lengths.min()} to {lengths.max()}" if np.ptp(lengths) else f"{lengths[0]}"
    )
    return f"expected {each}, {got}, whose sequences have {steps} steps{labels}"


def _refuse_values(
    name: str, values: np.ndarray, form: Objective, lengths: np.ndarray | None
) -> None:
    """Refuses what is not finite, and truths outside of [0, 1], by their place."""
    if form is LABELS:
        return
    low, high, kind = -np.inf, np.inf, "finite numbers"
    if form is TRUTHS:
        low, high, kind = 0, 1, "numbers from 0 to 1"
    bad = ~((values >= low) & (values <= high) & np.isfinite(values))
    if bad.any():
        row, output = np.argwhere(bad)[0]
        if lengths is None:
            at = f"of sequence {row}"
        else:
            sequence, step = Sequences.of(values, lengths).place(row)
            at = f"at sequence {sequence}, step {step}"
        raise ValueError(f"{name}: {values[row, output]} {at}; expected {kind}")


def classes_of(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The labels of the training part, sorted.

    Raises:
      ValueError: there is one alone, or another one in the held-out part.
    """
    classes = np.unique(values[train])
    if len(classes) < 2:
        raise ValueError(
            f"targets: all of the training part are {classes[0].item()!r}; expected at "
            "least two classes"
        )
    unknown = ~np.isin(values, classes)
    if unknown.any():
        raise ValueError(
            f"targets: class {values[unknown][0].item()!r} is in the held-out part alone"
        )
    return classes


def weights_of(
    given: Any, per_step: bool, labels: np.ndarray | None, lengths: np.ndarray
) -> np.ndarray:
    """float32 `[N]`, or of each step, one after another.

    Args:
      given: `[N]`, one for each step, or label -> weight.
      per_step: whether each step has a target.
      labels: what may be weighed by class; None: nothing.
      lengths: of those sequences that weights are given of.
    """
    if isinstance(given, dict):
        return _of_classes(given, labels)
    found = _stacked("weights", given)
    if len(found) != len(lengths):
        raise ValueError(
            f"weights: expected {len(lengths)}, one for each sequence, got {len(found)}"
        )
    if isinstance(found, np.ndarray) and found.ndim == 1:
        weights = found
    elif not per_step:
        raise ValueError(
            f"weights: targets are one a sequence; expected [{len(lengths)}] or a weight "
            f"for each class, got {list(np.shape(found[0]))} a sequence"
        )
    elif all(a.shape == (n,) for a, n in zip(found, lengths, strict=True)):
        weights = np.concatenate(list(found))
    else:
        raise ValueError(
            f"weights: expected [{len(lengths)}], or one for each step, got "
            f"{list(np.shape(found[0]))} of sequence 0, which has {lengths[0]} steps"
        )
    if is_text(weights):
        raise TypeError(f"weights: expected numbers, got {weights.dtype}")
    return _checked(weights)


def _of_classes(given: dict, labels: np.ndarray | None) -> np.ndarray:
    if labels is None:
        raise ValueError(
            "weights: by class, and targets are no labels; expected one for each sequence"
        )
    classes, index = np.unique(labels, return_inverse=True)
    known = {name.item(): name.item() in given for name in classes}
    lacking = [name for name, there in known.items() if not there]
    more = [name for name in given if name not in known]
    if lacking or more:
        what = (
            f"no weight of class {lacking[0]!r}" if lacking else f"no class {more[0]!r}"
        )
        raise ValueError(f"weights: {what}; classes are {', '.join(map(repr, known))}")
    return _checked(np.array([given[name] for name in known])[index.reshape(-1)])


def _checked(weights: np.ndarray) -> np.ndarray:
    bad = ~((weights >= 0) & np.isfinite(weights))
    if bad.any():
        raise ValueError(
            f"weights: expected finite numbers of at least 0, got {weights[bad][0]}"
        )
    return weights.astype(np.float32)
