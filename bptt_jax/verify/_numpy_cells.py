"""The library's cells once more, in NumPy and without JAX: the papers' equations.

One step each, `(params, carry, x) -> (carry, y)`, written as plainly as possible: no
fused product, σ by its definition. `over_time` is the loop, with masks and resets.
Nothing here takes code from the rest of the package, so an error would have to be made
twice to go unseen. Complex arguments work (for complex-step derivatives).
"""

from collections.abc import Callable
from functools import partial

import numpy as np


def over_time(step: Callable, init_carry: Callable, y_of: Callable | None) -> Callable:
    """`(params, carry, xs, side) -> (carry, ys)` from a step on arrays.

    Args:
      step: `(params, carry, x) -> (carry, y)`; a carry is an array or a tuple of them.
      init_carry: `(params, carry) -> carry`, what a reset puts in place of a carry.
      y_of: the output that a carry holds, shown where a step has not been; None: zeros.
    """

    def run(params, carry, xs, side):
        ys = []
        for t in range(len(xs)):
            if side.resets is not None:
                carry = _select(side.resets[t], init_carry(params, carry), carry)
            x = np.asarray(xs[t])
            if side.mask is not None:
                x = _select(side.mask[t], x, np.zeros_like(x))
            after, y = step(params, carry, x)
            if side.mask is not None:
                after = _select(side.mask[t], after, carry)
                held = y_of(after) if y_of else np.zeros_like(y)
                y = _select(side.mask[t], y, held)
            carry = after
            ys.append(y)
        return carry, np.stack(ys)

    return run


def _select(flag, a, b):
    if isinstance(a, tuple):
        each = [_select(flag, x, y) for x, y in zip(a, b, strict=True)]
        return type(a)(*each) if hasattr(a, "_fields") else tuple(each)
    return np.where(np.asarray(flag)[..., None], a, b)


def zero_carry(params, carry):
    """Zeros in the place of every array."""
    del params
    if isinstance(carry, tuple):
        zeros = [np.zeros_like(a) for a in carry]
        return type(carry)(*zeros) if hasattr(carry, "_fields") else tuple(zeros)
    return np.zeros_like(carry)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def relu(a):
    return np.where(np.real(a) > 0, a, 0)


def elman(activation: Callable = np.tanh) -> Callable:
    def step(p, h, x):
        h = activation(x @ p["w_x"] + h @ p["w_h"] + p["b"])
        return h, h

    return over_time(step, zero_carry, lambda h: h)


def lstm() -> Callable:
    def step(p, carry, x):
        h, c = carry
        a = x @ p["w_x"] + h @ p["w_h"] + p["b"]
        i, f, g, o = np.split(a, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return type(carry)(h, c), h

    return over_time(step, zero_carry, lambda carry: carry[0])


def _gru_step(p, h, x, reset_after: bool = True):
    x_r, x_z, x_n = np.split(x @ p["w_x"] + p["b"], 3, -1)
    w_r, w_z, w_n = np.split(p["w_h"], 3, -1)
    r, z = sigmoid(x_r + h @ w_r), sigmoid(x_z + h @ w_z)
    if reset_after:
        n = np.tanh(x_n + r * (h @ w_n + p["b_n"]))
    else:
        n = np.tanh(x_n + (r * h) @ w_n)
    h = (1 - z) * n + z * h
    return h, h


def gru(reset_after: bool = True) -> Callable:
    return over_time(
        partial(_gru_step, reset_after=reset_after), zero_carry, lambda h: h
    )


def learned_carry() -> Callable:
    """Of a GRU."""
    return over_time(
        lambda p, h, x: _gru_step(p.cell, h, x),
        lambda p, h: np.broadcast_to(p.carry, h.shape),
        lambda h: h,
    )


def leaky() -> Callable:
    """The cell of `_library` made from a user's step: its output is no state."""

    def step(p, h, x):
        h = 0.9 * h + np.tanh(x @ p["w"] + h @ p["r"])
        return h, h[..., :2] * p["scale"]

    return over_time(step, zero_carry, None)
