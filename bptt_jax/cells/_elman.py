"""The simple recurrent network (Elman 1990, "Finding structure in time").

    (1)  z_t = x_t W_x + h_{t-1} W_h + b
    (2)  h_t = φ(z_t)                      the output of the step is h_t

Backward, with d h_t from later steps and d y_t from the output:

    (3)  delta_t   = (d h_t + d y_t) φ'(z_t)             d z_t, from (2)
    (4)  d h_{t-1} = delta_t W_hᵀ                        from (1)
    (5)  d W_x = Σ x_t ⊗ delta_t,  d W_h = Σ h_{t-1} ⊗ delta_t,  d b = Σ delta_t
    (6)  d x_t = delta_t W_xᵀ

For tanh φ'(z_t) = 1 - h_t², and for relu it is [h_t > 0]: the coefficients are read off
the stored states, without computing z_t again, and what the product gives to keep, the
gates of `StepVJP`, is h_t; where φ' needs z_t it is z_t. Cost of the backward over T steps: the
product (4) at each step, (5) and (6) at once; O(T·B·H) memory.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bptt_jax._factory import factory, functions, not_negative, positive
from bptt_jax.cells import _init
from bptt_jax.cells._activations import from_output, slope
from bptt_jax.cells._in_dtype import in_dtype
from bptt_jax.cells._parts import coupled, step_of
from bptt_jax.cells._products import affine
from bptt_jax.types import Cell, Outer, StepVJP, Sum


@factory
def elman(
    n_in: int,
    n_hidden: int,
    *,
    activation: Callable = jnp.tanh,
    kernel_init: Callable = _init.lecun_normal,
    recurrent_kernel_init: Callable = _init.orthogonal,
    bias_init: Callable = _init.zeros,
    dtype=None,
    param_dtype=jnp.float32,
) -> Cell:
    """The simple recurrent cell, `h = φ(x W_x + h W_h + b)`.

    Args:
      n_in: features I of an input.
      n_hidden: hidden units H.
      activation: φ, elementwise: `jnp.tanh`, `jax.nn.relu`, or any other function that
        closes over no array (its derivative is then taken by `jax.jvp`).
      kernel_init: `(key, shape, dtype)`, for `w_x`.
      recurrent_kernel_init: the same for `w_h`; `cells.identity` with relu is the IRNN
        of Le, Jaitly and Hinton (2015).
      bias_init: the same for `b`.
      dtype: of the computation; None: that of params and inputs together.
      param_dtype: of the parameters.

    Returns:
      A cell with params `w_x [I, H]`, `w_h [H, H]`, `b [H]`; carry and output `h [..., H]`.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells
    >>> irnn = cells.elman(2, 100, activation=jax.nn.relu,
    ...                    recurrent_kernel_init=cells.identity)
    """
    functions(activation=activation)
    not_negative(n_in=n_in)
    positive(n_hidden=n_hidden)

    def init(key):
        k_x, k_h, k_b = jax.random.split(key, 3)
        return dict(
            w_x=kernel_init(k_x, (n_in, n_hidden), param_dtype),
            w_h=recurrent_kernel_init(k_h, (n_hidden, n_hidden), param_dtype),
            b=bias_init(k_b, (n_hidden,), param_dtype),
        )

    def init_carry(p, batch_shape):
        return jnp.zeros((*batch_shape, n_hidden), p["b"].dtype)

    def project(p, xs):
        return affine(xs, p["w_x"], p["b"])

    def keeps_z():  # asked when traced: making a cell computes nothing
        return from_output(activation) is None

    def gates(p, h, u):
        z = u + h @ p["w_h"]  # (1)
        return z if keeps_z() else activation(z)

    def move(p, g, h):
        h = activation(g) if keeps_z() else g  # (2)
        return h, h

    def local(p, g, hs, nexts):
        return slope(activation, g, nexts)  # which reads z only where g is z

    def backward(p, slope_t, d_h, d_y):
        delta = (d_h + d_y) * slope_t  # (3)
        return delta @ p["w_h"].T, delta  # (4)

    def factors(p, xs, hs, slopes, deltas):
        del slopes
        of_p = dict(w_x=Outer(xs, deltas), w_h=Outer(hs, deltas), b=Sum(deltas))  # (5)
        return of_p, deltas @ p["w_x"].T  # (6)

    vjp = StepVJP(project, gates, move, local, backward, factors)
    return in_dtype(
        Cell(
            init,
            init_carry,
            step_of(vjp),
            vjp,
            output=lambda h: h,
            name="elman",
            pointwise=True,
            couplings=coupled("w_h"),
        ),
        dtype,
    )
