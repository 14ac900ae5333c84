"""The library's cells once more, in NumPy and without JAX: the papers' equations.

One step each, `(params, carry, x) -> (carry, y)`, written as plainly as possible: no
fused product, σ by its definition. `over_time` is the loop, with masks and resets.
Nothing here takes code from the rest of the package, so an error would have to be made
twice to go unseen. Complex arguments work (for complex-step derivatives).

The one thing that comes from JAX is the noise of zoneout: the bits that `jax.random`
gives for the keys of `Side`, drawn here by a call of its own.
"""

import functools
from collections.abc import Callable
from functools import partial

import jax
import numpy as np


def over_time(
    step: Callable,
    init_carry: Callable,
    y_of: Callable | None,
    noise: Callable | None = None,
) -> Callable:
    """`(params, carry, xs, side) -> (carry, ys)` from a step on arrays.

    Args:
      step: `(params, carry, x) -> (carry, y)`; a carry is an array or a tuple of them.
      init_carry: `(params, carry) -> carry`, what a reset puts in place of a carry.
      y_of: the output that a carry holds, shown where a step has not been; None: zeros.
      noise: `(keys, T, carry) -> [T] draws`, each handed to its step as a last argument.
    """

    def run(params, carry, xs, side):
        ys, draws = [], noise(side.keys, len(xs), carry) if noise else None
        for t in range(len(xs)):
            if side.resets is not None:
                carry = _select(side.resets[t], init_carry(params, carry), carry)
            x = np.asarray(xs[t])
            if side.mask is not None:
                x = _select(side.mask[t], x, np.zeros_like(x))
            drawn = () if draws is None else (draws[t],)
            after, y = step(params, carry, x, *drawn)
            if side.mask is not None:
                after = _select(side.mask[t], after, carry)
                held = y_of(after) if y_of else np.zeros_like(y)
                y = _select(side.mask[t], y, held)
            carry = after
            ys.append(y)
        return carry, np.stack(ys)

    return run


def backward_in_time(run: Callable) -> Callable:
    """The last step first. A reset is a boundary between two steps: seen from the end,
    that before step t + 1 comes before step t.
    """

    def from_the_end(params, carry, xs, side):
        if side.resets is not None:
            boundaries = np.asarray(side.resets)[:0:-1]
            none = np.zeros_like(np.asarray(side.resets)[:1])
            side = side._replace(resets=np.concatenate([none, boundaries]))
        if side.mask is not None:
            side = side._replace(mask=np.asarray(side.mask)[::-1])
        carry, ys = run(params, carry, np.asarray(xs)[::-1], side)
        return carry, ys[::-1]

    return from_the_end


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


def softplus(a):
    return np.log1p(np.exp(a))


def elman(activation: Callable = np.tanh) -> Callable:
    def step(p, h, x):
        h = activation(x @ p["w_x"] + h @ p["w_h"] + p["b"])
        return h, h

    return over_time(step, zero_carry, lambda h: h)


def indrnn(activation: Callable = relu) -> Callable:
    """Li et al. 2018, equation (3)."""

    def step(p, h, x):
        h = activation(x @ p["w_x"] + p["w_h"] * h + p["b"])
        return h, h

    return over_time(step, zero_carry, lambda h: h)


def ctrnn(
    rate_state: bool = True, activation: Callable = np.tanh, tau=100.0, dt=20.0
) -> Callable:
    """Euler steps of τ ds/dt = -s + input: of rates, or of currents."""

    def rates(p, r, x):
        target = activation(x @ p["w_x"] + r @ p["w_h"] + p["b"])
        r = r + _alpha(p, tau, dt) * (target - r)
        return r, r

    def currents(p, v, x):
        target = x @ p["w_x"] + activation(v) @ p["w_h"] + p["b"]
        v = v + _alpha(p, tau, dt) * (target - v)
        return v, activation(v)

    if rate_state:
        return over_time(rates, zero_carry, lambda r: r)
    return over_time(currents, zero_carry, None)


def _alpha(p, tau, dt):
    return sigmoid(p["alpha_logit"]) if "alpha_logit" in p else dt / tau


def _lstm_step(p, carry, x):
    h, c = carry
    i, f, g, o = np.split(x @ p["w_x"] + h @ p["w_h"] + p["b"], 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return type(carry)(h, c), h


def _h_of(carry):
    return carry[0]


def lstm() -> Callable:
    return over_time(_lstm_step, zero_carry, _h_of)


def lstm_variant(
    peepholes: bool = False, projection: bool = False, layer_norm: bool = False
) -> Callable:
    """Peepholes: Gers, Schraudolph, Schmidhuber 2002. Projection: Sak et al. 2014.
    Layer normalisation: Ba, Kiros, Hinton 2016, equations (20) to (22).
    """

    def step(p, carry, x):
        h, c = carry
        from_x, from_h = x @ p["w_x"], h @ p["w_h"]
        if layer_norm:
            from_x = p["scale_x"] * normalised(from_x)
            from_h = p["scale_h"] * normalised(from_h)
        i, f, g, o = np.split(from_x + from_h + p["b"], 4, -1)
        p_i, p_f, p_o = np.split(p["w_c"], 3) if peepholes else (0.0, 0.0, 0.0)
        c_before = c
        c = sigmoid(f + p_f * c_before) * c_before
        c = c + sigmoid(i + p_i * c_before) * np.tanh(g)
        shown = p["scale_c"] * normalised(c) + p["bias_c"] if layer_norm else c
        h = sigmoid(o + p_o * c) * np.tanh(shown)
        if projection:
            h = h @ p["w_r"]
        return type(carry)(h, c), h

    return over_time(step, zero_carry, _h_of)


def normalised(a, epsilon: float = 1e-6):
    """Mean 0 and variance 1 over the last axis (`np.var` takes |a|, no good here)."""
    mean = np.mean(a, -1, keepdims=True)
    variance = np.mean((a - mean) ** 2, -1, keepdims=True)
    return (a - mean) / np.sqrt(variance + epsilon)


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


def mgu() -> Callable:
    """As flax has it: f = 1 keeps the state."""

    def step(p, h, x):
        x_f, x_n = np.split(x @ p["w_x"] + p["b"], 2, -1)
        w_f, w_n = np.split(p["w_h"], 2, -1)
        f = sigmoid(x_f + h @ w_f)
        n = np.tanh(x_n + f * (h @ w_n + p["b_n"]))
        h = (1 - f) * n + f * h
        return h, h

    return over_time(step, zero_carry, lambda h: h)


def mgu_as_published() -> Callable:
    """Zhou et al. 2016, equations (5) to (7): f = 1 takes the candidate."""

    def step(p, h, x):
        x_f, x_n = np.split(x @ p["w_x"] + p["b"], 2, -1)
        w_f, w_n = np.split(p["w_h"], 2, -1)
        f = sigmoid(x_f + h @ w_f)
        n = np.tanh(x_n + (f * h) @ w_n)
        h = (1 - f) * h + f * n
        return h, h

    return over_time(step, zero_carry, lambda h: h)


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


def gated_sum() -> Callable:
    """The affine cell of `_library` in five parts."""

    def step(p, s, x):
        s = p["a"] * s + x @ p["w"]
        return s, s

    return over_time(step, zero_carry, lambda s: s)


def zoneout_of_elman(rate: float) -> Callable:
    def step(p, h, x, z):
        after = np.tanh(x @ p["w_x"] + h @ p["w_h"] + p["b"])
        h = z[0] * h + (1 - z[0]) * after
        return h, h

    return over_time(step, zero_carry, lambda h: h, partial(_zones, (rate,)))


def zoneout_of_lstm(rate_h: float, rate_c: float) -> Callable:
    """Krueger et al. 2017, equation (6): cell and hidden state with noise of their own."""

    def step(p, carry, x, z):
        after, _ = _lstm_step(p, carry, x)
        h = z[0] * carry[0] + (1 - z[0]) * after[0]
        c = z[1] * carry[1] + (1 - z[1]) * after[1]
        return type(carry)(h, c), h

    return over_time(step, zero_carry, _h_of, partial(_zones, (rate_h, rate_c)))


def _zones(rates: tuple[float, ...], keys, T: int, carry) -> list:
    """For each step and leaf what share of it stays; without keys the expectation."""
    if keys is None:
        return [rates] * T
    leaves = carry if isinstance(carry, tuple) else (carry,)
    shapes = tuple(np.shape(a) for a in leaves)
    return _drawn(np.asarray(jax.random.key_data(keys)).tobytes(), T, rates, shapes)


@functools.lru_cache(maxsize=16)
def _drawn(key_data: bytes, T: int, rates, shapes) -> list:
    """Kept, since a derivative by differences asks for one noise many times."""
    data = np.frombuffer(key_data, np.uint32).reshape(T, -1)

    def draw(key, i):
        bits = jax.random.fold_in(jax.random.wrap_key_data(key), 1 + i)
        return np.asarray(
            jax.random.bernoulli(bits, np.float32(rates[i]), shapes[i]), float
        )

    return [tuple(draw(key, i) for i in range(len(rates))) for key in data]
