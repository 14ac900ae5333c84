"""Which of three gradients is wrong: by hand, by `jax.grad`, by differences."""

import numpy as np

from bptt_jax.verify._differences import as_reals
from bptt_jax.verify._report import Row

DIFFERENCES = 1e-7
"""Relative error that fourth-order differences may have (mostly 1e-10)."""


def row(leaf, hand, grad, v, truth, floor, tolerance, label) -> Row:
    """What is found of the gradient of a leaf.

    Args:
      leaf: its name.
      hand, grad: the hand-derived gradient and that of `jax.grad`; None: not computed.
      v: directions, `[n, reals]`.
      truth: derivatives along them by differences, `[n]`; NaN: no difference there.
      floor: errors are relative to the largest entry, at least to this.
      tolerance: of errors between `hand` and `grad`.
      label: of the case.
    """
    smooth = np.isfinite(truth)
    by_truth = [float("nan")] * 2
    if smooth.any():
        with np.errstate(invalid="ignore"):  # of gradients that are not finite
            slopes = [
                g if g is None else v[smooth] @ as_reals(g.conj()) for g in (hand, grad)
            ]
        by_truth = [_error(slope, truth[smooth], floor) for slope in slopes]
    each = (_error(hand, grad, floor), *by_truth)
    largest = max(largest_of(grad), largest_of(hand), largest_of(truth[smooth]))
    return Row(leaf, largest, *each, _verdict(*each, tolerance), label)


def result_row(leaf, hand, grad, truth, tolerance, label) -> Row:
    """The same of the values of a result."""
    each = _error(hand, grad), _error(hand, truth), _error(grad, truth)
    wrong = [
        arm
        for arm, error in zip(("hand-derived", "jax.grad"), each[1:], strict=True)
        if error > tolerance
    ]
    verdict = "both" if len(wrong) > 1 else "".join(wrong)
    return Row(leaf, max(largest_of(truth), largest_of(hand)), *each, verdict, label)


def _verdict(hand_grad, hand_truth, grad_truth, tolerance) -> str:
    """Which is wrong. Between two that differ by less than differences can tell apart,
    the one that is ten times further from them.
    """
    hand_off, grad_off = hand_truth > DIFFERENCES, grad_truth > DIFFERENCES
    if hand_off and grad_off:
        return "both"
    if hand_off or grad_off:
        return "hand-derived" if hand_off else "jax.grad"
    if np.isnan([hand_grad, hand_truth, grad_truth]).all():
        return "undecided"
    if not hand_grad > tolerance:
        return ""
    if hand_truth > 10 * grad_truth:
        return "hand-derived"
    return "jax.grad" if grad_truth > 10 * hand_truth else "undecided"


def largest_of(a) -> float:
    """The largest magnitude; 0 where there is none."""
    return 0.0 if a is None else float(np.max(np.abs(a), initial=0.0))


def _error(a, b, floor: float = 0.0) -> float:
    """The largest difference, relative to the largest entry; infinite where NaN.

    NaN where one of the two was not computed.
    """
    if a is None or b is None:
        return float("nan")
    difference = largest_of(np.asarray(a) - np.asarray(b))
    scale = max(largest_of(a), largest_of(b), floor)
    if not np.isfinite(difference):
        return float("inf")
    return difference / scale if difference else 0.0
