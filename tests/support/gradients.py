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
    "all_pulled_back",
    "arguments_of",
    "error",
    "floating",
    "gradients",
    "initial",
    "of_unrolls",
    "pulled_back",
    "quick_jit",
    "worst",
]


quick_jit = functools.partial(jax.jit, compiler_options=QUICK)


def arguments_of(member: Member, layer, case: Case) -> Arguments:
    noise = member.options.get("noise", 0.3)

    def init(key):
        if case.T > SHORT:
            return initial(layer, tuple(jax.random.key_data(key).tolist()))
        return _drawn(layer)

    with jax.numpy_dtype_promotion("standard"):  # initialisers are jax.nn's
        drawn = layer._replace(init=init)
        return arguments(drawn, case, member.inputs, member.targets, noise, seed=1)


SHORT = 32
"""So few steps neither explode nor vanish with weights of this size."""


def _drawn(layer):
    """Parameters by NumPy, of the size of initial ones: `init` takes long to compile."""
    rng = np.random.default_rng(7)

    def leaf(a):
        if len(a.shape) < 2:
            return rng.random(a.shape).astype(a.dtype)
        return (normal(rng, a) / np.sqrt(a.shape[0])).astype(a.dtype)

    shapes = jax.eval_shape(layer.init, jax.random.key(0))
    leaves = [a.dtype for a in jax.tree.leaves(shapes)]
    if not all(jax.numpy.issubdtype(a, jax.numpy.inexact) for a in leaves):
        return initial(layer, (0, 1))
    return jax.tree.map(leaf, shapes)


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
    (found,) = all_pulled_back([f], *arguments, jit=jit, **compiler_options)
    return found


def all_pulled_back(functions, *arguments, jit=True, **compiler_options) -> list[dict]:
    """The same of each function, in one program."""
    chosen, merge = _split(arguments)
    names: list[list[str]] = []

    def one(f, chosen):
        named = []

        def outputs(chosen):
            named[:] = floating(f(*merge(chosen)))
            return [a for _, a in named]

        out, pull = jax.vjp(outputs, chosen)
        names.append([f"out{name}" for name, _ in named])
        cotangents = cotangents_like(out)
        if jit:  # lest XLA work with them while it compiles
            cotangents = jax.lax.optimization_barrier(cotangents)
        return *out, *pull(cotangents)[0]

    def all_of_them(chosen):
        names.clear()
        return [one(f, chosen) for f in functions]

    run = all_of_them
    if jit:
        run = jax.jit(run, compiler_options=compiler_options or None)
    results = run(chosen)
    of_arguments = [f"grad{name}" for name, _ in floating(arguments)]
    return [
        dict(zip([*outs, *of_arguments], map(np.asarray, values), strict=True))
        for outs, values in zip(names, results, strict=True)
    ]


def gradients(
    layer, at: Arguments, unroll=unrolls.bptt, *, compiler_options=None, **options
):
    """Outputs and gradients by name, for arguments of an unroll."""
    run = functools.partial(unroll, **options)
    (found,) = of_unrolls(layer, at, run, compiler_options=compiler_options)
    return found


def of_unrolls(layer, at: Arguments, *unrolls, compiler_options=None) -> list[dict]:
    """`gradients` through each of them, in one program."""
    options = dict(length=at.T) if at.xs is None else {}

    def run(unroll, params, carry, xs):
        return unroll(layer, params, carry, xs, at.side, **options)

    each = [functools.partial(run, unroll) for unroll in unrolls]
    return all_pulled_back(each, *at[:3], **(compiler_options or {}))


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
