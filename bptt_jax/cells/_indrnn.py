"""The independently recurrent network (Li et al. 2018, "IndRNN: building a longer and
deeper RNN"): each unit sees of the past its own state alone.

    (1)  z_t = x_t W_x + w_h ⊙ h_{t-1} + b         w_h: one number for each unit
    (2)  h_t = φ(z_t)                              the output of the step is h_t

Backward, with d h_t from later steps and d y_t from the output:

    (3)  delta_t   = (d h_t + d y_t) φ'(z_t)       d z_t, from (2)
    (4)  d h_{t-1} = delta_t ⊙ w_h                 from (1)
    (5)  d W_x = Σ x_t ⊗ delta_t,  d w_h = Σ h_{t-1} delta_t,  d b = Σ delta_t
    (6)  d x_t = delta_t W_xᵀ

The recurrence is diagonal, so the gradient of unit n over k steps grows or fades as
w_h[n]^k: with relu, |w_h| ≤ γ^(1/T) keeps it below γ over T steps (section 3.1 of the
paper; clip `w_h` after each update for it). Not done here: that clipping, and batch
normalisation.

Cost of the backward over T steps: O(T·B·H) elementwise, and the products (5) and (6) at
once; O(T·B·H) memory.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bptt_jax._factory import factory, functions, not_negative, positive
from bptt_jax._pytrees import across
from bptt_jax.cells import _init
from bptt_jax.cells._activations import from_output, slope
from bptt_jax.cells._in_dtype import in_dtype
from bptt_jax.cells._parts import step_of
from bptt_jax.cells._products import affine
from bptt_jax.types import Cell, Outer, StepVJP, Sum

unit_uniform = jax.nn.initializers.uniform(1.0)


@factory
def indrnn(
    n_in: int,
    n_hidden: int,
    *,
    activation: Callable = jax.nn.relu,
    kernel_init: Callable = _init.lecun_normal,
    recurrent_kernel_init: Callable = unit_uniform,
    bias_init: Callable = _init.zeros,
    dtype=None,
    param_dtype=jnp.float32,
) -> Cell:
    """The independently recurrent cell, `h = φ(x W_x + w_h ⊙ h + b)`.

    Args:
      n_in: features I of an input.
      n_hidden: hidden units H.
      activation: φ, elementwise: `jax.nn.relu`, `jnp.tanh`, or any other function that
        closes over no array (its derivative is then taken by `jax.jvp`).
      kernel_init: `(key, shape, dtype)`, for `w_x`.
      recurrent_kernel_init: the same for `w_h`, of shape `[H]`; at first uniform in
        [0, 1). The paper takes `jax.nn.initializers.uniform(2 ** (1 / T))`, made once.
      bias_init: the same for `b`.
      dtype: of the computation; None: that of params and inputs together.
      param_dtype: of the parameters.

    Returns:
      A cell with params `w_x [I, H]`, `w_h [H]`, `b [H]`; carry and output
      `h [..., H]`.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, unrolls
    >>> cell = cells.indrnn(3, 8)
    >>> params = cell.init(jax.random.key(0))
    >>> carry, hs = unrolls.bptt(cell, params, cell.init_carry(params, (2,)),
    ...                          jnp.ones((5, 2, 3)))
    >>> params["w_h"].shape, hs.shape
    ((8,), (5, 2, 8))
    """
    functions(activation=activation)
    not_negative(n_in=n_in)
    positive(n_hidden=n_hidden)

    def init(key):
        k_x, k_h, k_b = jax.random.split(key, 3)
        return dict(
            w_x=kernel_init(k_x, (n_in, n_hidden), param_dtype),
            w_h=recurrent_kernel_init(k_h, (n_hidden,), param_dtype),
            b=bias_init(k_b, (n_hidden,), param_dtype),
        )

    def init_carry(p, batch_shape):
        return jnp.zeros((*batch_shape, n_hidden), p["b"].dtype)

    def project(p, xs):
        return affine(xs, p["w_x"], p["b"])

    def keeps_z():  # asked when traced: making a cell computes nothing
        return from_output(activation) is None

    def gates(p, h, u):
        z = u + h * across(h, p["w_h"])  # (1)
        return z if keeps_z() else activation(z)

    def move(p, g, h):
        h = activation(g) if keeps_z() else g  # (2)
        return h, h

    def local(p, g, hs, nexts):
        return slope(activation, g, nexts)  # which reads z only where g is z

    def backward(p, slope_t, d_h, d_y):
        delta = (d_h + d_y) * slope_t  # (3)
        return delta * across(delta, p["w_h"]), delta  # (4)

    def factors(p, xs, hs, slopes, deltas):
        del slopes
        of_p = dict(w_x=Outer(xs, deltas), w_h=Sum(hs * deltas), b=Sum(deltas))  # (5)
        return of_p, deltas @ p["w_x"].T  # (6)

    vjp = StepVJP(project, gates, move, local, backward, factors)
    return in_dtype(
        Cell(
            init,
            init_carry,
            step_of(vjp),
            vjp,
            output=lambda h: h,
            name="indrnn",
            pointwise=True,
            couplings=lambda f, params: params,  # no unit sees another
        ),
        dtype,
    )
