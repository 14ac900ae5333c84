"""The minimal gated unit (Zhou, Wu, Zhang, Zhou 2016): a recurrent unit with one gate.

As in `flax.linen.MGUCell`, where f = 1 keeps the state and the gate acts after the
recurrent product (one product a step):

    (1)  [a_f, a_n] = x_t W_x + b              [q_f, q_n] = h_{t-1} W_h + [0, b_n]
    (2)  f = σ(a_f + q_f)                      n = tanh(a_n + f q_n)
    (3)  h_t = (1 - f) n + f h_{t-1}           the output of the step is h_t

Backward, with d the whole cotangent of h_t (later steps and output):

    (4)  d a_n = d (1 - f)(1 - n²)             d q_n = d a_n f
         d a_f = d q_f = (d (h_{t-1} - n) + d a_n q_n) f(1 - f)
    (5)  d h_{t-1} = d f + [d q_f, d q_n] W_hᵀ
    (6)  d W_x = Σ x_t ⊗ d a,  d b = Σ d a;  d W_h = Σ h_{t-1} ⊗ d q,  d b_n = Σ d q_n;
         d x_t = d a W_xᵀ

Each of (4) is d times a coefficient, so the loop hands on d alone (H floats) and
`factors` multiplies again.

As in the paper, where f = 1 takes the candidate, which sees of the state what f lets
through (two products a step):

    (7)  n = tanh(a_n + (f h_{t-1}) W_n)       W_h = [W_f, W_n],  no b_n
    (8)  h_t = (1 - f) h_{t-1} + f n
    (9)  d a_n = d f (1 - n²)                  d s = d a_n W_nᵀ  with  s = f h_{t-1}
         d a_f = (d (n - h_{t-1}) + d s h_{t-1}) f(1 - f)
    (10) d h_{t-1} = d (1 - f) + d s f + d a_f W_fᵀ
    (11) d W_f = Σ h_{t-1} ⊗ d a_f,  d W_n = Σ s ⊗ d a_n

Cost: O(T·B·H) memory, one (as in the paper: two) products a step each way. Not done:
flax's `reset_gate=False`, in which the gate does not act on the candidate.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bptt_jax._factory import factory, not_negative, positive
from bptt_jax._pytrees import across
from bptt_jax.cells import _init
from bptt_jax.cells._activations import sigmoid, tanh
from bptt_jax.cells._hold import hold
from bptt_jax.cells._in_dtype import in_dtype
from bptt_jax.cells._parts import coupled, step_of
from bptt_jax.cells._products import gate_products, held_dot_t
from bptt_jax.types import Blocks, Cell, Gates, Outer, StepVJP, Sum


@factory
def mgu(
    n_in: int,
    n_hidden: int,
    *,
    as_published: bool = False,
    forget_bias: float = 1.0,
    kernel_init: Callable = _init.lecun_normal,
    recurrent_kernel_init: Callable = _init.orthogonal,
    bias_init: Callable = _init.zeros,
    dtype=None,
    param_dtype=jnp.float32,
) -> Cell:
    """The minimal gated unit; gate and candidate in the order f, n.

    Args:
      n_in: features I of an input.
      n_hidden: hidden units H.
      as_published: False: as `flax.linen.MGUCell`, `h = (1 - f) n + f h` with
        `n = tanh(a_n + f (h W_n + b_n))`. True: as Zhou et al. 2016 have it,
        `h = (1 - f) h + f n` with `n = tanh(a_n + (f h) W_n)`.
      forget_bias: how far the bias of f is moved at initialisation towards keeping the
        state: up by it, or (`as_published`) down.
      kernel_init, recurrent_kernel_init, bias_init: `(key, shape, dtype)`, a gate each.
      dtype: of the computation; None: that of params and inputs together.
      param_dtype: of the parameters.

    Returns:
      A cell with params `w_x [I, 2H]`, `w_h [H, 2H]`, `b [2H]` (and, unless
      `as_published`, `b_n [H]`); carry and output `h [..., H]`.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, unrolls
    >>> cell = cells.mgu(3, 8)
    >>> params = cell.init(jax.random.key(0))
    >>> carry, hs = unrolls.bptt(cell, params, cell.init_carry(params, (2,)),
    ...                          jnp.ones((5, 2, 3)))
    >>> hs.shape
    (5, 2, 8)
    """
    not_negative(n_in=n_in)
    positive(n_hidden=n_hidden)
    to_keep = -forget_bias if as_published else forget_bias

    def init(key):
        k_x, k_h, k_b, k_n = jax.random.split(key, 4)
        gate = (param_dtype,)
        params = dict(
            w_x=_init.fused(kernel_init, k_x, n_in, n_hidden, 2, *gate),
            w_h=_init.fused(recurrent_kernel_init, k_h, n_hidden, n_hidden, 2, *gate),
            b=bias_init(k_b, (2, n_hidden), *gate).at[0].add(to_keep).reshape(-1),
        )
        if not as_published:
            params["b_n"] = bias_init(k_n, (n_hidden,), *gate)
        return params

    def init_carry(p, batch_shape):
        return jnp.zeros((*batch_shape, n_hidden), p["b"].dtype)

    vjp = _published() if as_published else _as_flax()
    return in_dtype(
        Cell(
            init,
            init_carry,
            step_of(vjp),
            vjp,
            output=lambda h: h,
            name="mgu",
            pointwise=True,
            couplings=coupled("w_h"),
        ),
        dtype,
    )


def _project(p, xs):
    return gate_products(xs, p["w_x"], 2, p["b"])


def _halves(a):
    return jnp.split(a, 2, -1)


def _as_flax() -> StepVJP:
    def gates(p, h, u):  # (1), (2)
        (a_f, a_n), (q_f, q_n) = u, gate_products(h, p["w_h"], 2)
        f, q_n = sigmoid(a_f + q_f), q_n + across(q_n, p["b_n"])
        return Gates(dict(f=f, n=tanh(a_n + f * q_n)), q_n)

    def move(p, g, h):
        f, n = g.named["f"], g.named["n"]
        h = n + f * (h - n)  # (3)
        return h, h

    def local(p, g, hs, nexts):
        del nexts
        f, n, q_n = g.named["f"], g.named["n"], g.rest
        a_n = (1 - f) * (1 - n * n)  # (4), each without its factor d
        a_f = (hs - n + a_n * q_n) * f * (1 - f)
        q = jnp.concatenate([a_f, a_n * f], -1)
        return hold((q, a_n, f))

    def backward(p, coeffs, d_h, d_y):
        q, _, f = coeffs
        d = d_h + d_y
        return d * f + held_dot_t(q * jnp.concatenate([d, d], -1), p["w_h"]), d  # (5)

    def factors(p, xs, hs, coeffs, ds):  # (6)
        q, a_n, _ = coeffs
        d_q = q * jnp.concatenate([ds, ds], -1)
        d_q_f, d_q_n = _halves(d_q)
        d_a = jnp.concatenate([d_q_f, a_n * ds], -1)
        of_p = dict(w_x=Outer(xs, d_a), w_h=Outer(hs, d_q), b=Sum(d_a), b_n=Sum(d_q_n))
        return of_p, d_a @ p["w_x"].T

    return StepVJP(_project, gates, move, local, backward, factors)


def _published() -> StepVJP:
    def gates(p, h, u):  # (7)
        (a_f, a_n), (w_f, w_n) = u, _halves(p["w_h"])
        f = sigmoid(a_f + h @ w_f)
        return Gates(dict(f=f, n=tanh(a_n + (f * h) @ w_n)))

    def move(p, g, h):
        f, n = g.named["f"], g.named["n"]
        h = h + f * (n - h)  # (8)
        return h, h

    def local(p, g, hs, nexts):
        del nexts
        f, n = g.named["f"], g.named["n"]
        slope = f * (1 - f)
        a_n = f * (1 - n * n)
        return hold((a_n, (n - hs) * slope, hs * slope, f))

    def backward(p, coeffs, d_h, d_y):
        a_n, f_from_d, f_from_s, f = coeffs
        w_f, w_n = _halves(p["w_h"])
        d = d_h + d_y
        d_n = d * a_n  # (9)
        d_s = d_n @ w_n.T
        d_f = d * f_from_d + d_s * f_from_s
        d_h = d * (1 - f) + d_s * f + d_f @ w_f.T  # (10)
        return d_h, jnp.concatenate([d_f, d_n], -1)

    def factors(p, xs, hs, coeffs, deltas):
        f = coeffs[3]
        d_f, d_n = _halves(deltas)
        of_w_h = Blocks((Outer(hs, d_f), Outer(f * hs, d_n)), -1)  # (11)
        of_p = dict(w_x=Outer(xs, deltas), w_h=of_w_h, b=Sum(deltas))
        return of_p, deltas @ p["w_x"].T

    return StepVJP(_project, gates, move, local, backward, factors)
