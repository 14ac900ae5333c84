"""Long short-term memory with peepholes, a projected output and layer normalisation.

The numbers with a prime are those of the plain cell in `_lstm.py`, of which every line
below is an extension. N is layer normalisation without its gain and bias,

    (1)  N(a) = â = (a - mean a) ρ,       ρ = 1 / sqrt(mean (a - mean a)² + ε)
    (2)  d a  = Nᵀ(d â) = ρ (d â - mean d â - â mean(d â â))

(shifting or scaling a does not move â, so (2) leaves of d â what is orthogonal to the
constant and, but for ε, to â). With all options, gates in the order i, f, g, o:

    (3)  a  = s_x N(x_t W_x) + s_h N(h_{t-1} W_h) + b        layer_norm: else no N, s
    (4)  i  = σ(a_i + p_i c_{t-1})      f = σ(a_f + p_f c_{t-1})
         g  = tanh(a_g)                 c_t = f c_{t-1} + i g
    (5)  o  = σ(a_o + p_o c_t)                               peepholes: else p = 0
    (6)  n  = s_c N(c_t) + b_c          m = o tanh(n)    layer_norm: else n = c_t
    (7)  h_t = m W_r                                         projection: else h_t = m

Peepholes: Gers, Schmidhuber 2000. Projection: Sak, Senior, Beaufays 2014; PyTorch's
`proj_size`. Layer normalisation: Ba, Kiros, Hinton 2016, appendix: over the 4H
pre-activations together, from x and from h apart; their two biases and b are one here,
since only the sum matters. Backward, with d h the whole cotangent of h_t:

    (8)  d m   = d h W_rᵀ
    (9)  d n   = d m o (1 - tanh²n)
    (10) d a_o = d m tanh(n) o(1 - o)
    (11) d c_t += Nᵀ(s_c d n) + p_o d a_o                    layer_norm: else d n + …
    (12) d a_i = d c_t g i(1 - i)      d a_f = d c_t c_{t-1} f(1 - f)
         d a_g = d c_t i (1 - g²)
    (13) d c_{t-1} = d c_t f + p_i d a_i + p_f d a_f
    (14) d q   = Nᵀ(s_h d a)           d h_{t-1} = d q W_hᵀ          q = h_{t-1} W_h
    (15) d v   = Nᵀ(s_x d a)           d x_t = d v W_xᵀ              v = x_t W_x
    (16) d W_x = Σ x_t ⊗ d v,  d W_h = Σ h_{t-1} ⊗ d q,  d W_r = Σ m ⊗ d h,
         d b = Σ d a,  d b_c = Σ d n,
         d s_x = Σ d a v̂,  d s_h = Σ d a q̂,  d s_c = Σ d n ĉ_t,
         d p_i = Σ d a_i c_{t-1},  d p_f = Σ d a_f c_{t-1},  d p_o = Σ d a_o c_t

In the loop (13) is d c_t times one coefficient, and so is the p_o term of (11) of d m.
v and v̂ need no state: `project` normalises all steps at once and `factors` does so
again. Cost: as the plain cell; a second product a step each way with a projection.
"""

import operator
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax.cells._activations import sigmoid, tanh
from bptt_jax.cells._hold import hold
from bptt_jax.cells._products import affine, gate_products
from bptt_jax.types import Gates, Outer, StepVJP, Sum


class _Norm(NamedTuple):
    """What (2) needs of (1): â `[..., n]` and ρ `[..., 1]`."""

    hat: Array
    rho: Array


class _Coeffs(NamedTuple):
    """What the backward needs of the states; None where its option is off.

    a_from: the factors of d c_t, d c_t, d c_t, d m in (12) and (10), `[..., 4H]`.
    keep: the factor of d c_t in (13).
    n_from_m: that of d m in (9).
    c_from_m: that of d m in (11), as far as no normalisation is in between.
    m, c: the unprojected output and the cell state after the step.
    q_norm, c_norm: the normalisations of (3) and (6).
    """

    a_from: Array
    keep: Array
    n_from_m: Array | None
    c_from_m: Array | None
    m: Array | None
    c: Array | None
    q_norm: _Norm | None
    c_norm: _Norm | None


class _Delta(NamedTuple):
    """The cotangents that weights were multiplied with; None where not needed."""

    a: Array
    n: Array | None
    h: Array | None


def extra_params(n_hidden: int, peepholes: bool, layer_norm: bool, dtype) -> dict:
    """The parameters of the options at initialisation, but for `w_r`."""
    params = {}
    if peepholes:
        params["w_c"] = jnp.zeros((3 * n_hidden,), dtype)
    if layer_norm:
        params["scale_x"] = params["scale_h"] = jnp.ones((4 * n_hidden,), dtype)
        params["scale_c"] = jnp.ones((n_hidden,), dtype)
        params["bias_c"] = jnp.zeros((n_hidden,), dtype)
    return params


def variant(
    *, peepholes: bool, projected: bool, layer_norm: bool, epsilon: float
) -> StepVJP:
    """The derivative of the cell with any of the options."""

    def project(p, xs):  # (3), the term of x
        if not layer_norm:
            return gate_products(xs, p["w_x"], 4, p["b"])
        norm = _normalise(affine(xs, p["w_x"]), epsilon)
        return _quarters(_scaled(norm.hat, p["scale_x"], p["b"]))

    def from_h(p, h):  # (3), the term of h
        if not layer_norm:
            return gate_products(h, p["w_h"], 4), None
        norm = _normalise(h @ p["w_h"], epsilon)
        return _quarters(_scaled(norm.hat, p["scale_h"])), norm

    def seen(p, c):  # (6)
        if not layer_norm:
            return c, None
        norm = _normalise(c, epsilon)
        return _scaled(norm.hat, p["scale_c"], p["bias_c"]), norm

    def gates(p, carry, u):
        q, q_norm = from_h(p, carry.h)
        a_i, a_f, a_g, a_o = map(operator.add, u, q)
        if peepholes:
            p_i, p_f, p_o = _thirds(trees.across(a_i, p["w_c"]))
            a_i, a_f = a_i + p_i * carry.c, a_f + p_f * carry.c
        i, f, g = sigmoid(a_i), sigmoid(a_f), tanh(a_g)  # (4)
        if peepholes:
            a_o = a_o + p_o * (f * carry.c + i * g)
        return Gates(dict(i=i, f=f, g=g, o=sigmoid(a_o)), q_norm)  # (5)

    def move(p, gates, carry):
        i, f, g, o = _each(gates)
        c = f * carry.c + i * g  # (4)
        m = o * tanh(seen(p, c)[0])  # (6)
        h = m @ p["w_r"] if projected else m  # (7)
        return carry._replace(h=h, c=c), h

    def local(p, gates, carries, nexts):
        before, after, q_norm = carries.c, nexts.c, gates.rest
        i, f, g, o = _each(gates)
        n, c_norm = seen(p, after)
        tanh_n = tanh(n)
        n_from_m = o * (1 - tanh_n * tanh_n)  # (9)
        i_from_c, f_from_c = g * i * (1 - i), before * f * (1 - f)  # (12)
        o_from_m = tanh_n * o * (1 - o)  # (10)
        keep, c_from_m = f, None if layer_norm else n_from_m
        if peepholes:
            p_i, p_f, p_o = _thirds(trees.across(before, p["w_c"]))
            keep = f + p_i * i_from_c + p_f * f_from_c  # (13)
            by_o = p_o * o_from_m  # (11)
            c_from_m = by_o if layer_norm else n_from_m + by_o
        a_from = jnp.concatenate([i_from_c, f_from_c, i * (1 - g * g), o_from_m], -1)
        return hold(
            _Coeffs(
                a_from,
                keep,
                n_from_m if layer_norm else None,
                c_from_m,
                o * tanh_n if projected else None,
                after if peepholes else None,
                q_norm,
                c_norm,
            )
        )

    def backward(p, k, d_carry, d_y):
        d_h, d_c = d_carry.h + d_y, d_carry.c
        d_m = d_h @ p["w_r"].T if projected else d_h  # (8)
        d_n = d_m * k.n_from_m if layer_norm else None  # (9)
        if layer_norm:
            d_c = d_c + _normalise_back(_scaled(d_n, p["scale_c"]), k.c_norm)  # (11)
        if k.c_from_m is not None:
            d_c = d_c + d_m * k.c_from_m  # (11)
        d_a = jnp.concatenate([d_c, d_c, d_c, d_m], -1) * k.a_from  # (10), (12)
        d_q = (
            _normalise_back(_scaled(d_a, p["scale_h"]), k.q_norm) if layer_norm else d_a
        )
        d_before = d_carry._replace(h=d_q @ p["w_h"].T, c=d_c * k.keep)  # (13), (14)
        return d_before, _Delta(d_a, d_n, d_h if projected else None)

    def factors(p, xs, carries, k, deltas):  # (14) to (16)
        d_v = d_q = d_a = deltas.a
        of_p: dict = dict(b=Sum(d_a))
        if layer_norm:
            v_norm, q_norm = _normalise(affine(xs, p["w_x"]), epsilon), k.q_norm
            d_v = _normalise_back(_scaled(d_a, p["scale_x"]), v_norm)
            d_q = _normalise_back(_scaled(d_a, p["scale_h"]), q_norm)
            of_p["scale_x"] = Sum(d_a * v_norm.hat)
            of_p["scale_h"] = Sum(d_a * q_norm.hat)
            of_p["scale_c"] = Sum(deltas.n * k.c_norm.hat)
            of_p["bias_c"] = Sum(deltas.n)
        if peepholes:
            d_i, d_f, _, d_o = _quarters(d_a)
            each = [d_i * carries.c, d_f * carries.c, d_o * k.c]
            of_p["w_c"] = Sum(jnp.concatenate(each, -1))
        if projected:
            of_p["w_r"] = Outer(k.m, deltas.h)
        of_p["w_x"], of_p["w_h"] = Outer(xs, d_v), Outer(carries.h, d_q)
        return of_p, d_v @ p["w_x"].T

    return StepVJP(project, gates, move, local, backward, factors)


def _each(gates: Gates) -> list[Array]:
    return [gates.named[name] for name in "ifgo"]


def _normalise(a, epsilon: float) -> _Norm:
    """(1) over the last axis, in at least float32."""
    wide = a.astype(trees.at_least_float32(a.dtype))
    wide = wide - wide.mean(-1, keepdims=True)
    rho = lax.rsqrt((wide * wide).mean(-1, keepdims=True) + epsilon)
    return _Norm((wide * rho).astype(a.dtype), rho.astype(a.dtype))


def _normalise_back(d, norm: _Norm):
    """(2), the transpose of the derivative of `_normalise`."""
    hat, rho = norm
    along = (d * hat).mean(-1, keepdims=True)
    return rho * (d - d.mean(-1, keepdims=True) - hat * along)


def _scaled(a, scale, bias=None):
    a = a * trees.across(a, scale)
    return a if bias is None else a + trees.across(a, bias)


def _quarters(a):
    return jnp.split(a, 4, -1)


def _thirds(a):
    return jnp.split(a, 3, -1)
