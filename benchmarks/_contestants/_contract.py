"""What a contestant is: the same network from the same weights, by one library.

The loss is half the sum of squares of all outputs, so the cotangent of each output is
the output itself; the gradient is that of all weights and of the inputs.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._cases import Case, inputs, weights


class Declined(Exception):
    """Why a library cannot run the mathematics of a case."""


class Program(NamedTuple):
    """One case in one library, ready to run; each call returns when its work is done.

    gradient: loss and gradients.
    forward: outputs alone.
    answers: `(ys, d_weights, d_xs)` as NumPy arrays in the project's layout.
    compile_s, temp_bytes: of the gradient, by XLA; None where nothing is compiled ahead.
    """

    gradient: Callable
    forward: Callable
    answers: Callable
    compile_s: float | None = None
    temp_bytes: int | None = None


class Contestant(NamedTuple):
    """A library, and how it builds a case (raising `Declined` where it cannot).

    build: `(case, compilations) -> Program`; the least time of so many is kept.
    """

    name: str
    build: Callable[[Case, int], Program]


def half_square(ys):
    return 0.5 * (ys * ys).sum()


def by_layer(name: str, make: Callable, *, batch_major: bool = False) -> Contestant:
    """A JAX library with one recurrent layer at a time, applied one after the other.

    Args:
      name: of the contestant.
      make: `(cell, n_in, case) -> (convert, apply)`: from the project's weights of a
        layer to its own, and `apply(params, xs) -> ys`.
      batch_major: whether it takes and returns `[B, T, ...]`.
    """

    def whole(case: Case):
        layers = [make(case.cell, n, case) for n in case.sizes]

        def convert(ours):
            return [layer[0](w) for layer, w in zip(layers, ours, strict=True)]

        def apply(params, xs):
            for (_, apply), p in zip(layers, params, strict=True):
                xs = apply(p, xs)
            return xs

        return convert, apply

    return whole_network(name, whole, batch_major=batch_major)


def whole_network(
    name: str, make: Callable, *, batch_major: bool = False
) -> Contestant:
    """A JAX library by `make: (case) -> (convert, apply)` of the whole network."""

    def build(case: Case, compilations: int = 1) -> Program:
        convert, apply = make(case)
        ours = weights(case)
        xs = inputs(case).swapaxes(0, 1) if batch_major else inputs(case)
        params, xs = jax.tree.map(jnp.asarray, (convert(ours), xs))

        def loss(params, xs):
            return half_square(apply(params, xs))

        seconds = []
        for _ in range(compilations):
            jax.clear_caches()
            begin = time.perf_counter()
            gradient = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, xs)
            gradient = gradient.compile()
            seconds.append(time.perf_counter() - begin)
        forward = jax.jit(apply).lower(params, xs).compile()

        def answers():
            ys, (d_params, d_xs) = forward(params, xs), gradient(params, xs)[1]
            if batch_major:
                ys, d_xs = ys.swapaxes(0, 1), d_xs.swapaxes(0, 1)
            d_ours = back(convert, ours, d_params)
            return np.asarray(ys), d_ours, np.asarray(d_xs)

        return Program(
            lambda: jax.block_until_ready(gradient(params, xs)),
            lambda: jax.block_until_ready(forward(params, xs)),
            answers,
            round(min(seconds), 3),
            gradient.memory_analysis().temp_size_in_bytes,
        )

    return Contestant(name, build)


def back(convert: Callable, ours: list, d_theirs) -> list:
    """A gradient in the project's layout; the conversion is linear, so its transpose."""
    d_ours = jax.vjp(convert, jax.tree.map(jnp.asarray, ours))[1](d_theirs)[0]
    return jax.tree.map(np.asarray, d_ours)
