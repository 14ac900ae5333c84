"""The leaky rate network of computational neuroscience: a continuous-time recurrent
network in Euler steps, with α = dt / τ.

The state is the firing rate (the default; τ dh/dt = -h + φ(W_x x + W_h h + b), as in
Yang, Joglekar, Song, Newsome, Wang 2019):

    (1)  z_t = x_t W_x + h_{t-1} W_h + b           r_t = φ(z_t)
    (2)  h_t = (1 - α) h_{t-1} + α r_t             the output of the step is h_t

Backward, with d = d h_t + d y_t the whole cotangent of h_t:

    (3)  d z_t     = d α φ'(z_t)
    (4)  d h_{t-1} = d (1 - α) + d z_t W_hᵀ
    (5)  d W_x = Σ x_t ⊗ d z_t,  d W_h = Σ h_{t-1} ⊗ d z_t,  d b = Σ d z_t,
         d x_t = d z_t W_xᵀ

Or the state is the input current, or voltage (τ dv/dt = -v + W_x x + W_h φ(v) + b, as
in Song, Yang, Wang 2016), and the rate is the output:

    (6)  z_t = x_t W_x + φ(v_{t-1}) W_h + b
    (7)  v_t = (1 - α) v_{t-1} + α z_t             the output of the step is φ(v_t)

    (8)  d         = d v_t + d y_t φ'(v_t)         the whole cotangent of v_t
    (9)  d v_{t-1} = d (1 - α) + φ'(v_{t-1}) (d z_t W_hᵀ),      d z_t = d α
    (10) d W_h = Σ φ(v_{t-1}) ⊗ d z_t;  the others as in (5)

Its slopes are functions of the stored states: no product is computed again.

A time constant of each unit that is learnt, α = σ(a), so that τ = dt / α > dt whatever
a is. In both forms the step is s_t - s_{t-1} = α (target - s_{t-1}), hence

    (11) d a = Σ d (target - s_{t-1}) α (1 - α) = (1 - α) Σ d (s_t - s_{t-1})

Each of (3) to (11) is d times a coefficient, so the loop hands on d alone (H floats)
and `factors` multiplies again. Cost: O(T·B·H) memory, one product a step each way.
Not done: noise in the state, Dale's law (both are functions of inputs and parameters
that the caller can apply).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax._factory import factory, functions, not_negative, positive
from bptt_jax._pytrees import across
from bptt_jax.cells import _init
from bptt_jax.cells._activations import slope
from bptt_jax.cells._in_dtype import in_dtype
from bptt_jax.cells._parts import coupled, step_of
from bptt_jax.cells._products import affine, held_dot_t
from bptt_jax.types import Cell, Outer, StepVJP, Sum


@factory
def ctrnn(
    n_in: int,
    n_hidden: int,
    *,
    tau: float = 100.0,
    dt: float = 20.0,
    learn_tau: bool = False,
    rate_state: bool = True,
    activation: Callable = jnp.tanh,
    kernel_init: Callable = _init.lecun_normal,
    recurrent_kernel_init: Callable = _init.orthogonal,
    bias_init: Callable = _init.zeros,
    dtype=None,
    param_dtype=jnp.float32,
) -> Cell:
    """The leaky rate cell, `h = (1 - α) h + α φ(x W_x + h W_h + b)`, `α = dt / tau`.

    Args:
      n_in: features I of an input.
      n_hidden: hidden units H.
      tau: time constant of the units, in the unit of `dt`.
      dt: time of one step, `0 < dt <= tau`; equal to `tau` it is the Elman cell.
      learn_tau: whether each unit has its own time constant, a parameter (at first
        `tau`, which then is longer than `dt`).
      rate_state: what the state is: the rate, as above, or (False) the current v with
        `v = (1 - α) v + α (x W_x + φ(v) W_h + b)`, whose output is the rate φ(v).
      activation: φ, elementwise: `jnp.tanh`, `jax.nn.relu`, or any other function that
        closes over no array (its derivative is then taken by `jax.jvp`).
      kernel_init: `(key, shape, dtype)`, for `w_x`.
      recurrent_kernel_init: the same for `w_h`.
      bias_init: the same for `b`.
      dtype: of the computation; None: that of params and inputs together.
      param_dtype: of the parameters.

    Returns:
      A cell with params `w_x [I, H]`, `w_h [H, H]`, `b [H]` (and `alpha_logit [H]`,
      with `tau = dt / sigmoid(alpha_logit)`); carry and output `[..., H]`.

    Raises:
      ValueError: `dt` does not fit `tau`.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, unrolls
    >>> cell = cells.ctrnn(3, 8, tau=100.0, dt=10.0, activation=jax.nn.relu)
    >>> params = cell.init(jax.random.key(0))
    >>> carry, rates = unrolls.bptt(cell, params, cell.init_carry(params, (2,)),
    ...                             jnp.ones((5, 2, 3)))
    >>> rates.shape
    (5, 2, 8)
    """
    functions(activation=activation)
    not_negative(n_in=n_in)
    positive(n_hidden=n_hidden)
    _check_times(tau, dt, learn_tau)

    def init(key):
        k_x, k_h, k_b = jax.random.split(key, 3)
        params = dict(
            w_x=kernel_init(k_x, (n_in, n_hidden), param_dtype),
            w_h=recurrent_kernel_init(k_h, (n_hidden, n_hidden), param_dtype),
            b=bias_init(k_b, (n_hidden,), param_dtype),
        )
        if learn_tau:
            logit = -float(np.log(tau / dt - 1))
            params["alpha_logit"] = jnp.full((n_hidden,), logit, param_dtype)
        return params

    def init_carry(p, batch_shape):
        return jnp.zeros((*batch_shape, n_hidden), p["b"].dtype)

    def alpha(p, like):
        return across(like, jax.nn.sigmoid(p["alpha_logit"])) if learn_tau else dt / tau

    def moved(carries, nexts):  # the factor of d in (11)
        return nexts - carries if learn_tau else None

    def of_alpha(p, ds, moves):  # (11)
        if not learn_tau:
            return {}
        return dict(alpha_logit=Sum(ds * moves * (1 - alpha(p, ds))))

    vjp = (_rates if rate_state else _currents)(activation, alpha, moved, of_alpha)
    return in_dtype(
        Cell(
            init,
            init_carry,
            step_of(vjp),
            vjp,
            output=(lambda h: h) if rate_state else None,
            name="ctrnn",
            pointwise=True,
            couplings=coupled("w_h"),
        ),
        dtype,
    )


def _check_times(tau: float, dt: float, learn_tau: bool) -> None:
    if not 0 < dt <= tau < float("inf"):
        raise ValueError(
            f"dt and tau: expected 0 < dt <= tau, got dt={dt!r}, tau={tau!r}"
        )
    if learn_tau and dt == tau:
        raise ValueError(
            f"tau: expected more than dt={dt!r} where learn_tau=True, got {tau!r}"
        )


def _project(p, xs):
    return affine(xs, p["w_x"], p["b"])


def _rates(activation, alpha, moved, of_alpha) -> StepVJP:
    def gates(p, h, u):
        return u + h @ p["w_h"]  # (1)

    def move(p, z, h):
        h = (1 - alpha(p, h)) * h + alpha(p, h) * activation(z)  # (1), (2)
        return h, h

    def local(p, zs, hs, nexts):
        gains = alpha(p, hs) * slope(activation, zs, activation(zs))
        return gains, moved(hs, nexts)

    def backward(p, coeffs, d_h, d_y):
        gain, _ = coeffs
        d = d_h + d_y
        return d * (1 - alpha(p, d)) + held_dot_t(d * gain, p["w_h"]), d  # (3), (4)

    def factors(p, xs, hs, coeffs, ds):
        gains, moves = coeffs
        d_zs = ds * gains  # (3)
        of_p = dict(w_x=Outer(xs, d_zs), w_h=Outer(hs, d_zs), b=Sum(d_zs))  # (5)
        return of_p | of_alpha(p, ds, moves), d_zs @ p["w_x"].T

    return StepVJP(_project, gates, move, local, backward, factors)


def _currents(activation, alpha, moved, of_alpha) -> StepVJP:
    def gates(p, v, u):
        return u + activation(v) @ p["w_h"]  # (6)

    def move(p, z, v):
        v = (1 - alpha(p, v)) * v + alpha(p, v) * z  # (7)
        return v, activation(v)

    def local(p, zs, vs, nexts):
        del p, zs
        before = slope(activation, vs, activation(vs))
        after = slope(activation, nexts, activation(nexts))
        return before, after, moved(vs, nexts)

    def backward(p, coeffs, d_v, d_y):
        before, after, _ = coeffs
        d = d_v + d_y * after  # (8)
        d_z = d * alpha(p, d)
        return d * (1 - alpha(p, d)) + before * held_dot_t(d_z, p["w_h"]), d  # (9)

    def factors(p, xs, vs, coeffs, ds):
        _, _, moves = coeffs
        d_zs = ds * alpha(p, ds)
        of_w_h = Outer(activation(vs), d_zs)  # (10)
        of_p = dict(w_x=Outer(xs, d_zs), w_h=of_w_h, b=Sum(d_zs))
        return of_p | of_alpha(p, ds, moves), d_zs @ p["w_x"].T

    return StepVJP(_project, gates, move, local, backward, factors)
