"""Gradients of a random linear functional of the outputs and the final carry."""

import jax
import numpy as np

from bptt_jax import unrolls
from bptt_jax.types import Side
from bptt_jax.verify import Member
from bptt_jax.verify._cases import Arguments, Case, arguments

__all__ = ["Case", "arguments_of", "error", "gradients", "worst"]


def arguments_of(member: Member, layer, case: Case) -> Arguments:
    noise = member.options.get("noise", 0.3)
    with jax.numpy_dtype_promotion("standard"):  # initialisers are jax.nn's
        return arguments(layer, case, member.inputs, member.targets, noise, seed=1)


def floating(tree) -> list[tuple[str, np.ndarray]]:
    """`(name, leaf)` of the floating leaves."""
    return [
        (jax.tree_util.keystr(path), a)
        for path, a in jax.tree_util.tree_leaves_with_path(tree)
        if jax.numpy.issubdtype(jax.numpy.result_type(a), jax.numpy.inexact)
    ]


def cotangents_like(tree, seed=2) -> list:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=a.shape).astype(a.dtype) for _, a in floating(tree)]


def pulled_back(f, *arguments) -> tuple[dict, dict]:
    """Values of f and the gradient of a random functional of them, by name of leaf."""
    names = [name for name, _ in floating(arguments)]
    leaves, structure = jax.tree.flatten(arguments)
    chosen = [a for _, a in floating(arguments)]
    which = [any(a is b for b in chosen) for a in leaves]

    def outputs(chosen):
        rest = iter(chosen)
        merged = [next(rest) if w else a for a, w in zip(leaves, which, strict=True)]
        return f(*structure.unflatten(merged))

    def values(chosen):
        return [a for _, a in floating(outputs(chosen))]

    shapes = jax.eval_shape(outputs, chosen)
    cotangents = cotangents_like(shapes)
    out, pull = jax.vjp(values, chosen)
    results = [name for name, _ in floating(shapes)]
    return (
        dict(zip(results, out, strict=True)),
        dict(zip(names, pull(cotangents)[0], strict=True)),
    )


def gradients(layer, at: Arguments, unroll=unrolls.bptt, *, jit=True, **options) -> dict:
    """Outputs and gradients by name, for arguments of an unroll."""
    if at.xs is None:
        options["length"] = at.T

    def run(params, carry, xs):
        return unroll(layer, params, carry, xs, at.side, **options)

    def both(params, carry, xs):
        return pulled_back(run, params, carry, xs)

    both = jax.jit(both) if jit else both
    values, grads = both(at.params, at.carry, at.xs)
    return {
        **{f"out{name}": np.asarray(a) for name, a in values.items()},
        **{f"grad{name}": np.asarray(a) for name, a in grads.items()},
    }


def error(a, b) -> float:
    """Relative to the largest entry; infinite where something is not finite."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    difference = np.max(np.abs(a - b), initial=0.0)
    scale = max(np.max(np.abs(b), initial=0.0), 1e-3)
    return float(difference / scale) if np.isfinite(difference) else float("inf")


def worst(a: dict, b: dict) -> tuple[float, str]:
    """The largest error and the leaf that has it."""
    assert a.keys() == b.keys()
    return max((error(a[name], b[name]), name) for name in a)


def no_side(at: Arguments) -> Arguments:
    return at._replace(side=Side())
