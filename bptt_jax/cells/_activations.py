"""Activation functions, and their slopes from what a step has stored."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from bptt_jax.cells._hold import hold
from bptt_jax.cells._output import program

SLOPES = {  # φ'(z) as a function of h = φ(z), by the primitive that φ is
    "tanh": lambda h: 1 - h * h,
    "logistic": lambda h: h * (1 - h),
    "relu": lambda h: (h > 0).astype(h.dtype),
    "identity": jnp.ones_like,
}


def tanh(a: Array) -> Array:
    """One kernel of its own."""
    return hold(jnp.tanh(a))


def sigmoid(a: Array) -> Array:
    """σ(a) = tanh(a/2)/2 + 1/2."""
    return 0.5 * tanh(0.5 * a) + 0.5


def from_output(activation: Callable) -> Callable | None:
    """φ' as a function of h = φ(z); None where more than h is needed, or not known.

    Found by looking at the function, not at its name: `jnp.tanh`, `lax.tanh` and a
    function that calls either are one. A slope that needs no z costs no second product.
    """
    return SLOPES.get(_primitive(activation) or "")


def slope(activation: Callable, z: Array, h: Array) -> Array:
    """φ'(z) of an elementwise φ, from the output h = φ(z) where that is enough."""
    known = from_output(activation)
    if known is not None:
        return known(h)
    return jax.jvp(activation, (z,), (jnp.ones_like(z),))[1]


@functools.lru_cache(maxsize=256)
def _primitive(activation: Callable) -> str | None:
    """Which of `SLOPES` a function is, by its trace."""
    try:
        traced = jax.make_jaxpr(activation)(jax.ShapeDtypeStruct((), jnp.float32))
    except (TypeError, ValueError):  # not of one number: told where it is used
        return None
    name, by_rule = _of_jaxpr(traced.jaxpr)
    return None if by_rule and not _has_slope(activation, name) else name


def _of_jaxpr(jaxpr) -> tuple[str | None, bool]:
    """The one primitive of a program, and whether a rule of its own may give another
    slope than that has.
    """
    if len(jaxpr.invars) != 1 or len(jaxpr.outvars) != 1 or jaxpr.constvars:
        return None, False
    (x,), (y,), eqns = jaxpr.invars, jaxpr.outvars, jaxpr.eqns
    if not eqns:
        return ("identity" if x is y else None), False
    if len(eqns) > 1 or y is not eqns[0].outvars[0]:
        return None, False
    (eqn,) = eqns
    inner, name = program(eqn), eqn.primitive.name
    if inner is not None:
        found, by_rule = _of_jaxpr(inner)
        return found, by_rule or name.startswith("custom_")
    if name == "max" and any(
        isinstance(v, core.Literal) and not v.val for v in eqn.invars
    ):
        return "relu", True  # jnp.maximum has half a slope at 0
    return (name if name in SLOPES and not eqn.params.get("accuracy") else None), False


def _has_slope(activation: Callable, name: str | None) -> bool:
    """Whether JAX differentiates the function as `SLOPES` has it, at a few points."""
    if name is None:
        return False
    with jax.ensure_compile_time_eval():
        z = jnp.asarray([-2.0, -0.5, 0.0, 0.5, 2.0], jnp.float32)
        # as a program: JAX 0.7 stages a rule of one's own whatever is asked for
        h, d = jax.jit(lambda z: jax.jvp(activation, (z,), (jnp.ones_like(z),)))(z)
        return bool(jnp.allclose(d, SLOPES[name](h), rtol=1e-5, atol=1e-6))
