"""`loops.pallas` with its kernels interpreted, on a CPU: the numbers of the kernel."""

import jax
from jax import lax

from bptt_jax import loops
from bptt_jax.loops import _pallas
from bptt_jax.loops._step_by_step import backward, forward
from bptt_jax.types import Loop

ran: list[dict] = []
"""Parameters of the scans that ran as kernels, newest last."""


def scan(step, carry, xs, length=None, reverse=False):
    """`lax.scan`, its equation as an interpreted kernel."""
    traced, kinds = jax.make_jaxpr(
        lambda carry, xs: lax.scan(step, carry, xs, length, reverse), return_shape=True
    )(carry, xs)
    env = dict(zip(traced.jaxpr.constvars, traced.consts, strict=True))
    env |= dict(zip(traced.jaxpr.invars, jax.tree.leaves((carry, xs)), strict=True))
    read = lambda v: v.val if hasattr(v, "val") else env[v]
    for eqn in traced.jaxpr.eqns:
        args = list(map(read, eqn.invars))
        if eqn.primitive is lax.scan_p:
            ran.append(eqn.params)
            results = _pallas.run(*args, interpret=True, **eqn.params)
        else:
            results = eqn.primitive.bind(*args, **eqn.params)
            results = results if eqn.primitive.multiple_results else [results]
        env |= dict(zip(eqn.outvars, results, strict=True))
    structure = jax.tree.structure(kinds)
    return structure.unflatten(map(read, traced.jaxpr.outvars))


def _forward(cell, params, carry, inputs, keep, length):
    return forward(scan, cell, params, carry, inputs, keep, length)


def _backward(cell, save, *stretch):
    return backward(scan, cell, save, *stretch)


interpreted = Loop("interpreted", _forward, _backward, loops.step_by_step.supports)
