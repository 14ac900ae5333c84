"""`lax.scan`, unrolled where a turn of a loop costs more than its step: on GPU and TPU.

There a turn is a counter, copies in and out and a graph or some kernels to start; unrolled, a
step is its product and what is fused behind it. The platform is known when a program is
lowered, not before, so this is a primitive: JAX's scan, with its parameters and its rules, and
another lowering. Derivatives, partial evaluation and dead code are those of a scan and give
scans; a batch of these is one of these.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.extend.core.primitives import scan_p
from jax.interpreters import ad, batching, mlir
from jax.interpreters import partial_eval as pe

from bptt_jax._jax import scan_operands
from bptt_jax.types import PyTree

LONGEST = (
    16  # steps of a body: of more the time to compile grows faster than what is gained
)


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: PyTree,
    xs: PyTree,
    length: int | None = None,
    reverse: bool = False,
    primitive: Primitive | None = None,
) -> tuple[PyTree, PyTree]:
    """`lax.scan(step, carry, xs, length, reverse)`, the same program on a CPU.

    primitive: one of `like_a_scan`; None: that of this module.
    """
    run = functools.partial(lax.scan, step, length=length, reverse=reverse)
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return run(carry, xs)
    traced, kinds = jax.make_jaxpr(run, return_shape=True)(carry, xs)
    results = _run(traced, jax.tree.leaves((carry, xs)), primitive or _scan)
    return jax.tree.unflatten(jax.tree.structure(kinds), results)


def body_length(length: int, longest: int | None = None) -> int:
    """Steps of a body: all of few, else a divisor where one is near.

    >>> body_length(8), body_length(50), body_length(64), body_length(67)
    (8, 10, 16, 14)
    """
    longest = longest or LONGEST
    even = -(-length // -(-length // longest))
    near = range(longest, even // 2, -1)
    return next((k for k in near if length % k == 0), even)


def _run(traced: ClosedJaxpr, args: list, primitive: Primitive) -> list:
    """The program with our scans for JAX's; those with effects stay as they are."""
    eqns = [
        e.replace(primitive=primitive) if e.primitive is scan_p and not e.effects else e
        for e in traced.jaxpr.eqns
    ]
    ours = ClosedJaxpr(traced.jaxpr.replace(eqns=eqns), traced.consts)
    return jaxpr_as_fun(ours)(*args)


def _transpose(d_results, *args, **params):
    unknown = [i for i, a in enumerate(args) if ad.is_undefined_primal(a)]
    wanted = [i for i, d in enumerate(d_results) if not isinstance(d, ad.Zero)]

    def linear(*along):
        given = list(args)
        for i, a in zip(unknown, along, strict=True):
            given[i] = a
        results = scan_p.bind(*given, **params)
        return [results[i] for i in wanted]

    back = jax.linear_transpose(linear, *(args[i].aval for i in unknown))
    d_args: list = [None] * len(args)
    for i, d in zip(unknown, back([d_results[i] for i in wanted]), strict=True):
        d_args[i] = d
    return d_args


def _unrolled(*args, **params):
    consts, carry, xs = scan_operands(args, params)
    body, length, reverse = (params[name] for name in ("jaxpr", "length", "reverse"))
    n_carry = len(carry)

    def step(carry, x):
        # Or a GPU computes a state anew along the chain, in each of its uses. The way back
        # is linear and has none of it.
        carry = carry if reverse else lax.optimization_barrier(carry)
        results = jaxpr_as_fun(body)(*consts, *carry, *x)
        return list(results[:n_carry]), list(results[n_carry:])

    n = body_length(length)
    carry, ys = lax.scan(step, carry, xs, length, reverse, unroll=n)
    # Or a sum over deltas is cut into one for each step, and over devices stays in the loop.
    ys = lax.optimization_barrier(ys) if reverse else ys
    return [*carry, *ys]


def like_a_scan(name: str) -> Primitive:
    """A primitive with the parameters and the rules of JAX's scan, lowered as one."""
    made = Primitive(name)
    made.multiple_results = True

    @made.def_abstract_eval
    def _kinds(*args, **params):
        return scan_p.abstract_eval(*args, **params)[0]

    @made.def_impl
    def _now(*args, **params):
        return jax.jit(functools.partial(made.bind, **params))(*args)

    def batch(axis, args, axes, **params):
        found = []

        def batched(*args):
            rule = batching.fancy_primitive_batchers[scan_p]
            results, at = rule(axis, args, axes, **params)
            found.append(at)
            return results

        traced = jax.make_jaxpr(batched)(*args)
        return _run(traced, list(args), made), found[-1]

    ad.primitive_jvps[made] = ad.primitive_jvps[scan_p]
    pe.custom_partial_eval_rules[made] = pe.custom_partial_eval_rules[scan_p]
    pe.dce_rules[made] = pe.dce_rules[scan_p]
    rules = pe.partial_eval_jaxpr_custom_rules
    rules[made] = rules[scan_p]
    ad.primitive_transposes[made] = _transpose
    batching.fancy_primitive_batchers[made] = batch
    mlir.register_lowering(made, mlir.lower_fun(scan_p.bind, multiple_results=True))
    return made


_scan = like_a_scan("bptt_jax_scan")
unrolled = mlir.lower_fun(_unrolled, multiple_results=True)
for _platform in ("cuda", "rocm", "tpu"):
    mlir.register_lowering(_scan, unrolled, platform=_platform)
