"""Gradients of a random linear functional of the outputs and the final carry."""

import functools

import jax
import numpy as np

from bptt_jax import unrolls
from bptt_jax.verify import Member
from bptt_jax.verify._cases import Arguments, Case, arguments, double, normal
from support.compiled import QUICK

__all__ = [
    "QUICK",
    "Case",
    "arguments_of",
    "error",
    "floating",
    "gradients",
    "initial",
    "pulled_back",
    "pulled_back_by_each",
    "quick_jit",
    "worst",
]


quick_jit = functools.partial(jax.jit, compiler_options=QUICK)


def arguments_of(member: Member, layer, case: Case) -> Arguments:
    noise = member.options.get("noise", 0.3)

    def init(key):
        return initial(layer, tuple(jax.random.key_data(key).tolist()))

    with jax.numpy_dtype_promotion("standard"):  # initialisers are jax.nn's
        drawn = layer._replace(init=init)
        return arguments(drawn, case, member.inputs, member.targets, noise, seed=1)


def initial(layer, key: tuple[int, ...]):
    """`init` as one program, drawn once a process: step by step it is some twenty.

    key: its two words, `(0, seed)` of `jax.random.key(seed)`.
    """
    return _initial(layer, key, jax.config.jax_enable_x64)


@functools.cache
def _initial(layer, key, x64):
    data = np.array(key, np.uint32)
    drawn = quick_jit(lambda data: layer.init(jax.random.wrap_key_data(data)))(data)
    return jax.tree.map(np.asarray, drawn)


def floating(tree) -> list[tuple[str, np.ndarray]]:
    """`(name, leaf)` of the floating leaves."""
    return [
        (jax.tree_util.keystr(path), a)
        for path, a in jax.tree_util.tree_leaves_with_path(tree)
        if jax.numpy.issubdtype(jax.numpy.result_type(a), jax.numpy.inexact)
    ]


def cotangents_like(tree, seed=2) -> list:
    rng = np.random.default_rng(seed)
    return [normal(rng, a).astype(a.dtype) for _, a in floating(tree)]


def _split(tree):
    """The floating leaves, and the way back to the tree."""
    leaves, structure = jax.tree.flatten(tree)
    which = [
        jax.numpy.issubdtype(jax.numpy.result_type(a), jax.numpy.inexact)
        for a in leaves
    ]

    def merge(chosen):
        rest = iter(chosen)
        return structure.unflatten(
            [next(rest) if w else a for a, w in zip(leaves, which, strict=True)]
        )

    return [a for a, w in zip(leaves, which, strict=True) if w], merge


def pulled_back(f, *arguments, jit=True, **compiler_options) -> dict:
    """Values of f and the gradient of a random functional of them, by name of leaf."""
    return pulled_back_by_each([f], *arguments, jit=jit, **compiler_options)[0]


def pulled_back_by_each(fs, *arguments, jit=True, **compiler_options) -> list[dict]:
    """What `pulled_back` has of each of several functions, of one program.

    Their values have the same shapes, and are pulled back by the same functional.
    """
    chosen, merge = _split(arguments)
    outputs = [lambda chosen, f=f: f(*merge(chosen)) for f in fs]

    def both(chosen, cotangents):
        found = []
        for each in outputs:
            out, pull = jax.vjp(lambda c: [a for _, a in floating(each(c))], chosen)  # noqa: B023
            found.append([*out, *pull(cotangents)[0]])
        return found

    shapes = jax.eval_shape(outputs[-1], chosen)
    both = jax.jit(both, compiler_options=compiler_options or None) if jit else both
    names = [f"out{name}" for name, _ in floating(shapes)]
    names += [f"grad{name}" for name, _ in floating(arguments)]
    return [
        dict(zip(names, map(np.asarray, leaves), strict=True))
        for leaves in both(chosen, cotangents_like(shapes))
    ]


def gradients(
    layer, at: Arguments, unroll=unrolls.bptt, *, compiler_options=None, **options
):
    """Outputs and gradients by name, for arguments of an unroll."""
    if at.xs is None:
        options["length"] = at.T

    def run(params, carry, xs):
        return unroll(layer, params, carry, xs, at.side, **options)

    return pulled_back(run, *at[:3], **(compiler_options or {}))


def error(a, b) -> float:
    """Relative to the largest entry; infinite where something is not finite."""
    a, b = double(a), double(b)
    difference = np.max(np.abs(a - b), initial=0.0)
    scale = max(np.max(np.abs(b), initial=0.0), 1e-3)
    return float(difference / scale) if np.isfinite(difference) else float("inf")


def worst(a: dict, b: dict) -> tuple[float, str]:
    """The largest error and the leaf that has it."""
    assert a.keys() == b.keys()
    return max((error(a[name], b[name]), name) for name in a)
