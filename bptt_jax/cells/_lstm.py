"""Long short-term memory (Hochreiter, Schmidhuber 1997; forget gate: Gers et al. 2000).

    (1)  a_t = x_t W_x + h_{t-1} W_h + b            gates in the order i, f, g, o
    (2)  i, f, o = σ(a_i), σ(a_f), σ(a_o)           g = tanh(a_g)
    (3)  c_t = f c_{t-1} + i g
    (4)  h_t = o tanh(c_t)                          the output of the step is h_t

Backward, with d h_t the whole cotangent of h_t (later steps and output):

    (5)  d c_t += d h_t o (1 - tanh²c_t)                            from (4)
    (6)  d a_i = d c_t g i(1 - i)      d a_f = d c_t c_{t-1} f(1 - f)
         d a_g = d c_t i (1 - g²)      d a_o = d h_t tanh(c_t) o(1 - o)
    (7)  d c_{t-1} = d c_t f           d h_{t-1} = d a_t W_hᵀ
    (8)  d W_x = Σ x_t ⊗ d a_t,  d W_h = Σ h_{t-1} ⊗ d a_t,  d b = Σ d a_t,
         d x_t = d a_t W_xᵀ

All factors of d c_t and d h_t in (5) to (7) depend on the stored states alone, so they
are computed for a whole stretch of time at once; the loop is two elementwise lines and
one product. σ(a) = tanh(a/2)/2 + 1/2 makes the four gates one tanh.

Cost: O(T·B·H) memory (c is stored; h is the output), one product a step each way.
Peepholes, a projected output and layer normalisation: `_lstm_variants.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bptt_jax._factory import factory, not_negative, positive
from bptt_jax._pytrees import across
from bptt_jax.cells import _init, _lstm_variants
from bptt_jax.cells._hold import hold
from bptt_jax.cells._in_dtype import in_dtype
from bptt_jax.cells._layout import Layout
from bptt_jax.cells._parts import coupled, step_of
from bptt_jax.cells._products import affine, dot_t
from bptt_jax.types import Cell, CellCouplings, Outer, StepVJP, Sum


class LSTMCarry(NamedTuple):
    """The hidden state and the cell state, `[..., H]` each, in PyTorch's order.

    Also the shape of what goes with each: cotangents, rates of zoneout.
    """

    h: Any
    c: Any


@factory
def lstm(
    n_in: int,
    n_hidden: int,
    *,
    forget_bias: float = 1.0,
    chrono: int | None = None,
    peepholes: bool = False,
    projection: int | None = None,
    layer_norm: bool = False,
    epsilon: float = 1e-6,
    gate_axis: bool = False,
    kernel_init: Callable = _init.lecun_normal,
    recurrent_kernel_init: Callable = _init.orthogonal,
    bias_init: Callable = _init.zeros,
    dtype=None,
    param_dtype=jnp.float32,
) -> Cell:
    """Long short-term memory; gates in the order i, f, g, o.

    Args:
      n_in: features I of an input.
      n_hidden: hidden units H.
      forget_bias: added to the bias of f at initialisation (Jozefowicz et al. 2015).
      chrono: T_max of the chrono initialisation (Tallec, Ollivier 2018): the bias of f
        is log U[1, T_max - 1] and that of i its negative; None: none.
      peepholes: whether gates see the cell state, unit by unit (Gers, Schmidhuber
        2000): i and f that before the step, o that after it; at first with weight 0.
      projection: features P of the output, `h = (o tanh(c)) W_r` (Sak et al. 2014;
        PyTorch's `proj_size`); None: no projection, P = H.
      layer_norm: whether `x W_x` and `h W_h` (over their 4H features each) and, where
        the output reads it, c are normalised (Ba, Kiros, Hinton 2016).
      epsilon: added to the variances of `layer_norm`.
      gate_axis: whether the gates of `w_x`, `w_h` and `b` are an axis of their own,
        `[..., 4, H]` in the place of `[..., 4H]` (one is a `reshape` of the other), so
        that hidden units can be spread over devices, each with all its gates. Not
        with `peepholes`, `projection`, `layer_norm`.
      kernel_init, recurrent_kernel_init, bias_init: `(key, shape, dtype)`, a gate each.
      dtype: of the computation; None: that of params and inputs together.
      param_dtype: of the parameters.

    Returns:
      A cell with params `w_x [I, 4H]`, `w_h [P, 4H]`, `b [4H]`; with `peepholes` also
      `w_c [3H]` (of i, f, o), with `projection` `w_r [H, P]`, with `layer_norm`
      `scale_x [4H]`, `scale_h [4H]`, `scale_c [H]`, `bias_c [H]`. Carry
      `LSTMCarry(h, c)` of `[..., P]` and `[..., H]`; output `h`.

    Raises:
      ValueError: a size is not a whole number of at least 1, or options that do not go
        together.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, unrolls
    >>> cell = cells.lstm(3, 8)
    >>> params = cell.init(jax.random.key(0))
    >>> carry, hs = unrolls.bptt(cell, params, cell.init_carry(params, (2,)),
    ...                          jnp.ones((5, 2, 3)))
    >>> hs.shape, carry.c.shape
    ((5, 2, 8), (2, 8))
    """
    n_out = n_hidden if projection is None else projection
    not_negative(n_in=n_in)
    positive(n_hidden=n_hidden, projection=n_out)
    plain = not (peepholes or projection is not None or layer_norm)
    if gate_axis and not plain:
        raise ValueError(
            "gate_axis: expected a plain LSTM, got one with peepholes, projection or "
            "layer norm"
        )
    layout = Layout(4, n_hidden, gate_axis)

    def init(key):
        k_x, k_h, k_b, k_f = jax.random.split(key, 4)
        b = bias_init(k_b, (4, n_hidden), param_dtype).at[1].add(forget_bias)
        if chrono is not None:
            b_f = _init.chrono_bias(k_f, n_hidden, chrono, param_dtype)
            b = b.at[1].set(b_f).at[0].set(-b_f)
        w_x = _init.fused(kernel_init, k_x, n_in, n_hidden, 4, param_dtype)
        w_h = _init.fused(recurrent_kernel_init, k_h, n_out, n_hidden, 4, param_dtype)
        params = dict(w_x=w_x, w_h=w_h, b=b.reshape(-1))
        params = {name: layout.of(a) for name, a in params.items()}
        params |= _lstm_variants.extra_params(
            n_hidden, peepholes, layer_norm, param_dtype
        )
        if projection is not None:
            k_r = jax.random.fold_in(key, 0)
            params["w_r"] = kernel_init(k_r, (n_hidden, projection), param_dtype)
        return params

    def init_carry(p, batch_shape):
        h = jnp.zeros((*batch_shape, n_out), p["b"].dtype)
        return LSTMCarry(h, jnp.zeros((*batch_shape, n_hidden), h.dtype))

    if plain:
        vjp = _plain(layout)
    else:
        vjp = _lstm_variants.variant(
            peepholes=peepholes,
            projected=projection is not None,
            layer_norm=layer_norm,
            epsilon=epsilon,
        )
    return in_dtype(
        Cell(
            init,
            init_carry,
            step_of(vjp),
            vjp,
            output=lambda carry: carry.h,
            name="lstm",
            pointwise=projection is None and not layer_norm,
            couplings=_couplings(projection is not None, layer_norm),
        ),
        dtype,
    )


def _couplings(projected: bool, layer_norm: bool) -> CellCouplings | None:
    if layer_norm:  # a mean over units is no matrix
        return None
    return coupled("w_h", "w_r") if projected else coupled("w_h")


def _plain(layout: Layout) -> StepVJP:
    scale, shift = (0.5, 0.5, 1.0, 0.5), (0.5, 0.5, 0.0, 0.5)  # of i, f, g, o

    def project(p, xs):
        return affine(xs, p["w_x"], p["b"])

    def gates(p, carry, u):
        a = u + affine(carry.h, p["w_h"])  # (1)
        s, t = (across(a, layout.each(b, a.dtype)) for b in (scale, shift))
        return layout.named("ifgo", hold(jnp.tanh(a * s)) * s + t)  # (2), in one kernel

    def move(p, g, carry):
        i, f, g, o = (g.named[name] for name in "ifgo")
        c = f * carry.c + i * g  # (3)
        h = o * jnp.tanh(c)  # (4)
        return LSTMCarry(h, c), h

    def local(p, g, carries, nexts):
        i, f, g, o = (g.named[name] for name in "ifgo")
        tanh_c = jnp.tanh(nexts.c)
        a_from_c_h = [
            g * i * (1 - i),
            carries.c * f * (1 - f),
            i * (1 - g * g),
            tanh_c * o * (1 - o),
        ]
        c_from_h = o * (1 - tanh_c * tanh_c)
        return hold((layout.join(a_from_c_h), c_from_h, f))

    def backward(p, coeffs, d_carry, d_y):
        a_from_c_h, c_from_h, f = coeffs
        d_h = d_carry.h + d_y
        d_c = d_carry.c + d_h * c_from_h  # (5)
        d_a = layout.join([d_c, d_c, d_c, d_h]) * a_from_c_h  # (6)
        return LSTMCarry(dot_t(d_a, p["w_h"]), d_c * f), d_a  # (7)

    def factors(p, xs, carries, coeffs, d_as):  # (8)
        del coeffs
        of_p = dict(w_x=Outer(xs, d_as), w_h=Outer(carries.h, d_as), b=Sum(d_as))
        return of_p, dot_t(d_as, p["w_x"])

    return StepVJP(project, gates, move, local, backward, factors)
