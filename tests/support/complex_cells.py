"""Cells with complex states and parameters: a derivative by hand, and one by JAX.

    z_t = a ⊙ s_{t-1} + x_t b,    s_t = z_t g(z_t),    g(z) = 1 / (1 + |z|²)
    y_t = Re(c ⊙ s_t)

g makes the step no function of the complex numbers that has a complex derivative. With
d = ∂L/∂Re - i ∂L/∂Im, as JAX has it, δL = Re(d δs) and so

    (1)  dz = g d - 2 g² Re(d z) z̄,      d s_{t-1} = a ⊙ dz
"""

import jax
import jax.numpy as jnp

from bptt_jax import cells
from bptt_jax._pytrees import across as over
from bptt_jax.cells._products import outer_sum, total

I = 3


def init(key, n=4):
    def normal(key, shape):
        return jax.random.normal(key, shape, jnp.complex64)

    k_a, k_b, k_c = jax.random.split(key, 3)
    return dict(a=normal(k_a, (n,)), b=normal(k_b, (I, n)), c=normal(k_c, (n,)))


def init_carry(params, batch_shape):
    return jnp.zeros((*batch_shape, *params["a"].shape), params["a"].dtype)


def project(p, xs):
    return xs.astype(p["b"].dtype) @ p["b"]


def shrink(z):
    return 1 / (1 + z.real**2 + z.imag**2)


def step(p, s, x):
    z = over(s, p["a"]) * s + project(p, x)
    s = z * shrink(z).astype(z.dtype)
    return s, (over(s, p["c"]) * s).real


def forward(p, s, u):
    z = over(s, p["a"]) * s + u
    s = z * shrink(z).astype(z.dtype)
    return s, (over(s, p["c"]) * s).real


def linearize(p, carries, us, nexts):
    z = over(carries, p["a"]) * carries + us
    return z, shrink(z), nexts


def backward(p, coeffs, d_s, d_y):
    z, g, _ = coeffs
    d_s = d_s + over(d_s, p["c"]) * d_y.astype(d_s.dtype)
    radial = 2 * g**2 * (d_s * z).real
    dz = g.astype(z.dtype) * d_s - radial.astype(z.dtype) * z.conj()  # (1)
    return over(dz, p["a"]) * dz, (dz, d_y)


def contract(p, xs, carries, coeffs, deltas):
    dz, d_y = deltas
    d_params = dict(
        a=total(carries * dz),
        b=outer_sum(xs.astype(dz.dtype), dz),
        c=total(coeffs[2] * d_y.astype(dz.dtype)),
    )
    return d_params, dz @ p["b"].T  # of real inputs the layer takes the real part


BY_HAND = cells.from_parts(
    init, init_carry, project=project, forward=forward, linearize=linearize,
    backward=backward, contract=contract, output=None,
)  # fmt: skip


def _leaky_init(key):
    """Real parameters beside complex ones, and a real state beside a complex one."""
    params = init(key)
    return dict(**params, decay=jnp.full(4, 0.7, jnp.float32))


def _leaky_carry(p, batch_shape):
    s = init_carry(p, batch_shape)
    return dict(s=s, m=jnp.zeros(s.shape, p["decay"].dtype))


def _leaky(p, carry, x):
    s, _ = step(p, carry["s"], x)
    m = over(carry["m"], p["decay"]) * carry["m"] + (s.real**2 + s.imag**2)
    angle = (s * over(s, p["c"])).imag * m
    return dict(s=s, m=m), (
        s * 1j * over(s, p["c"]).conj(),
        angle,
    )  # a complex output, a real one


BY_JAX = cells.from_step(_leaky, _leaky_init, _leaky_carry)
