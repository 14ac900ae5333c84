"""The gated recurrent unit (Cho et al. 2014), with the reset gate after or before.

Reset after the recurrent product (cuDNN, PyTorch; one product a step):

    (1)  [a_r, a_z, a_n] = x_t W_x + b         [q_r, q_z, q_n] = h_{t-1} W_h + [0, 0, b_n]
    (2)  r = σ(a_r + q_r)      z = σ(a_z + q_z)      n = tanh(a_n + r q_n)
    (3)  h_t = (1 - z) n + z h_{t-1}           the output of the step is h_t

Backward, with d the whole cotangent of h_t (later steps and output):

    (4)  d a_n = d (1 - z)(1 - n²)             d q_n = d a_n r
         d a_r = d q_r = d a_n q_n r(1 - r)    d a_z = d q_z = d (h_{t-1} - n) z(1 - z)
    (5)  d h_{t-1} = d z + [d q_r, d q_z, d q_n] W_hᵀ
    (6)  d W_x = Σ x_t ⊗ d a,  d b = Σ d a;  d W_h = Σ h_{t-1} ⊗ d q,  d b_n = Σ d q_n;
         d x_t = d a W_xᵀ

Each of (4) is d times a coefficient, so the loop hands on d alone (H floats) and
`factors` multiplies again.

Reset before the product (Cho et al.'s own form):

    (7)  n = tanh(a_n + (r h_{t-1}) W_n)       W_h = [W_rz, W_n]
    (8)  d s = d a_n W_nᵀ  with  s = r h_{t-1};   d a_r = d s h_{t-1} r(1 - r)
    (9)  d h_{t-1} = d z + d s r + [d a_r, d a_z] W_rzᵀ
    (10) d W_rz = Σ h_{t-1} ⊗ [d a_r, d a_z],  d W_n = Σ s ⊗ d a_n

Cost: O(T·B·H) memory, one (reset before: two) products a step each way.
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
from bptt_jax.cells._layout import Layout
from bptt_jax.cells._parts import coupled, step_of
from bptt_jax.cells._products import affine, dot_t, held_dot_t
from bptt_jax.types import Blocks, Cell, Gates, Outer, StepProject, StepVJP, Sum


@factory
def gru(
    n_in: int,
    n_hidden: int,
    *,
    reset_after: bool = True,
    chrono: int | None = None,
    gate_axis: bool = False,
    kernel_init: Callable = _init.lecun_normal,
    recurrent_kernel_init: Callable = _init.orthogonal,
    bias_init: Callable = _init.zeros,
    dtype=None,
    param_dtype=jnp.float32,
) -> Cell:
    """The gated recurrent unit; gates in the order r, z, n.

    Args:
      n_in: features I of an input.
      n_hidden: hidden units H.
      reset_after: where the reset gate acts: after the recurrent product (as PyTorch
        and cuDNN; there is a second bias `b_n`), or before it (Cho et al. 2014).
      chrono: T_max of the chrono initialisation (Tallec, Ollivier 2018) of the bias of
        z, which keeps the state; None: none.
      gate_axis: whether the gates of `w_x`, `w_h` and `b` are an axis of their own,
        `[..., 3, H]` in the place of `[..., 3H]` (one is a `reshape` of the other), so
        that hidden units can be spread over devices, each with all its gates.
      kernel_init, recurrent_kernel_init, bias_init: `(key, shape, dtype)`, a gate each.
      dtype: of the computation; None: that of params and inputs together.
      param_dtype: of the parameters.

    Returns:
      A cell with params `w_x [I, 3H]`, `w_h [H, 3H]`, `b [3H]` (and `b_n [H]`); carry
      and output `h [..., H]`.

    >>> from bptt_jax import cells
    >>> cell = cells.gru(3, 8, reset_after=False)
    """
    not_negative(n_in=n_in)
    positive(n_hidden=n_hidden)
    layout = Layout(3, n_hidden, gate_axis)

    def init(key):
        k_x, k_h, k_b, k_n, k_z = jax.random.split(key, 5)
        gate = (param_dtype,)
        b = bias_init(k_b, (3, n_hidden), param_dtype)
        if chrono is not None:
            b = b.at[1].set(_init.chrono_bias(k_z, n_hidden, chrono, param_dtype))
        params = dict(
            w_x=_init.fused(kernel_init, k_x, n_in, n_hidden, 3, *gate),
            w_h=_init.fused(recurrent_kernel_init, k_h, n_hidden, n_hidden, 3, *gate),
            b=b.reshape(-1),
        )
        params = {name: layout.of(a) for name, a in params.items()}
        if reset_after:
            params["b_n"] = bias_init(k_n, (n_hidden,), param_dtype)
        return params

    def init_carry(p, batch_shape):
        return jnp.zeros((*batch_shape, n_hidden), p["b"].dtype)

    vjp = (_reset_after if reset_after else _reset_before)(layout)
    return in_dtype(
        Cell(
            init,
            init_carry,
            step_of(vjp),
            vjp,
            output=lambda h: h,
            name="gru",
            pointwise=True,
            couplings=coupled("w_h"),
        ),
        dtype,
    )


def _project(layout: Layout) -> StepProject:
    return lambda p, xs: layout.split(affine(xs, p["w_x"], p["b"]))


def _move(p, g, h):
    z, n = g.named["z"], g.named["n"]
    h = n + z * (h - n)  # (3)
    return h, h


def _reset_after(layout: Layout) -> StepVJP:
    def gates(p, h, u):  # (1), (2)
        (a_r, a_z, a_n), (q_r, q_z, q_n) = u, layout.split(affine(h, p["w_h"]))
        r, z = sigmoid(a_r + q_r), sigmoid(a_z + q_z)
        q_n = q_n + across(q_n, p["b_n"])
        return Gates(dict(r=r, z=z, n=tanh(a_n + r * q_n)), q_n)

    def local(p, g, hs, nexts):
        del nexts
        (r, z, n), q_n = (g.named[name] for name in "rzn"), g.rest
        a_n = (1 - z) * (1 - n * n)  # (4), each without its factor d
        a_r = a_n * q_n * r * (1 - r)
        a_z = (hs - n) * z * (1 - z)
        q = layout.join([a_r, a_z, a_n * r])
        return hold((q, z, a_n))

    def backward(p, coeffs, d_h, d_y):
        q, z, _ = coeffs
        d = d_h + d_y
        return d * z + held_dot_t(q * layout.join([d] * 3), p["w_h"]), d  # (5)

    def factors(p, xs, hs, coeffs, ds):  # (6)
        q, _, a_n = coeffs
        d_q = q * layout.join([ds] * 3)
        *d_rz, d_q_n = layout.split(d_q)
        d_a = layout.join([*d_rz, a_n * ds])
        of_p = dict(w_x=Outer(xs, d_a), w_h=Outer(hs, d_q), b=Sum(d_a), b_n=Sum(d_q_n))
        return of_p, dot_t(d_a, p["w_x"])

    return StepVJP(_project(layout), gates, _move, local, backward, factors)


def _reset_before(layout: Layout) -> StepVJP:
    one, both = layout._replace(n=1), layout._replace(n=2)

    def weights(p):
        w_rz, w_n = layout.cut(p["w_h"], 2)
        return w_rz, w_n.reshape(w_n.shape[0], -1)

    def gates(p, h, u):  # (2), (7)
        w_rz, w_n = weights(p)
        (a_r, a_z, a_n), (q_r, q_z) = u, both.split(affine(h, w_rz))
        r, z = sigmoid(a_r + q_r), sigmoid(a_z + q_z)
        return Gates(dict(r=r, z=z, n=tanh(a_n + (r * h) @ w_n)))

    def local(p, g, hs, nexts):
        del nexts
        r, z, n = (g.named[name] for name in "rzn")
        a_n = (1 - z) * (1 - n * n)
        a_z = (hs - n) * z * (1 - z)
        return hold((hs * r * (1 - r), a_z, a_n, r, z))

    def backward(p, coeffs, d_h, d_y):
        r_slope, a_z, a_n, r, z = coeffs
        w_rz, w_n = weights(p)
        d = d_h + d_y
        d_n = d * a_n
        d_s = d_n @ w_n.T  # (8)
        d_r, d_z = d_s * r_slope, d * a_z
        d_rz = both.join([d_r, d_z])
        return d * z + d_s * r + dot_t(d_rz, w_rz), layout.join([d_r, d_z, d_n])  # (9)

    def factors(p, xs, hs, coeffs, deltas):
        r = coeffs[3]
        d_rz, d_n = layout.cut(deltas, 2)[0], one.of(layout.split(deltas)[2])
        of_w_h = Blocks((Outer(hs, d_rz), Outer(r * hs, d_n)), -layout.rank)  # (10)
        of_p = dict(w_x=Outer(xs, deltas), w_h=of_w_h, b=Sum(deltas))
        return of_p, dot_t(deltas, p["w_x"])

    return StepVJP(_project(layout), gates, _move, local, backward, factors)
