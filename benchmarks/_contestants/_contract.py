"""What a contestant is: the same network from the same weights, by one library.

The loss is half the sum of squares of all outputs, so the cotangent of each output is
the output itself; the gradient is that of all weights and of the inputs.
"""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._cases import Case, inputs, weights
from benchmarks._lowering import PLAIN, Lowering


class Declined(Exception):
    """Why a library cannot run the mathematics of a case."""


class Program(NamedTuple):
    """One case in one library, ready to run; each call returns when its work is done.

    gradient: loss and gradients.
    forward: outputs alone; what it needs is compiled at its first call.
    answers: `(ys, d_weights, d_xs)` as NumPy arrays in the project's layout.
    gradients: `(loss, d_weights, d_xs)`, likewise, of the program that is timed.
    compile_s, temp_bytes: of the gradient, by XLA; None where nothing is compiled ahead.
    host_bytes: temporary memory in that of the host.
    peak: bytes that were taken at most, where the library tells by itself.
    """

    gradient: Callable
    forward: Callable
    answers: Callable
    gradients: Callable
    compile_s: float | None = None
    temp_bytes: int | None = None
    host_bytes: int | None = None
    peak: Callable[[], int] | None = None


class Contestant(NamedTuple):
    """A library, and how it builds a case (raising `Declined` where it cannot).

    build: `(case, compilations) -> Program`; the least time of so many is kept.
    """

    name: str
    build: Callable[[Case, int], Program]


def half_square(ys):
    return 0.5 * (ys * ys).sum()


def by_layer(
    name: str,
    make: Callable,
    *,
    batch_major: bool = False,
    lowering: Lowering = PLAIN,
) -> Contestant:
    """A JAX library with one recurrent layer at a time, applied one after the other.

    Args:
      name: of the contestant.
      make: `(cell, n_in, case) -> (convert, apply)`: from the project's weights of a
        layer to its own, and `apply(params, xs) -> ys`.
      batch_major: whether it takes and returns `[B, T, ...]`.
      lowering: how its programs are made.
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

    return whole_network(name, whole, batch_major=batch_major, lowering=lowering)


def whole_network(
    name: str,
    make: Callable,
    *,
    batch_major: bool = False,
    lowering: Lowering = PLAIN,
) -> Contestant:
    """A JAX library by `make: (case) -> (convert, apply)` of the whole network."""

    def build(case: Case, compilations: int = 1) -> Program:
        convert, apply = make(case)
        ours = weights(case)
        xs = inputs(case).swapaxes(0, 1) if batch_major else inputs(case)
        params, xs = jax.jit(convert)(ours), jnp.asarray(xs)

        def loss(params, xs):
            return half_square(apply(params, xs))

        gradient, seconds = compiled(
            jax.value_and_grad(loss, (0, 1)), params, xs, lowering, compilations
        )

        @functools.cache
        def forward_program():
            return compiled(apply, params, xs, lowering)[0]

        def gradients():
            value, (d_params, d_xs) = gradient(params, xs)
            d_xs = d_xs.swapaxes(0, 1) if batch_major else d_xs
            return np.asarray(value), back(convert, ours, d_params), np.asarray(d_xs)

        def answers():
            ys = forward_program()(params, xs)
            ys = ys.swapaxes(0, 1) if batch_major else ys
            return np.asarray(ys), *gradients()[1:]

        return Program(
            lambda: jax.block_until_ready(gradient(params, xs)),
            lambda: jax.block_until_ready(forward_program()(params, xs)),
            answers,
            gradients,
            seconds,
            gradient.memory_analysis().temp_size_in_bytes,
        )

    return Contestant(name, build)


def compiled(
    f: Callable, params, xs, lowering: Lowering = PLAIN, compilations: int = 1
):
    """A program and the seconds it took to be made, the least of so many times."""
    seconds = []
    for _ in range(compilations):
        jax.clear_caches()
        begin = time.perf_counter()
        with lowering.around():
            lowered = lowering.jit(f).lower(params, xs)
        program = lowered.compile()
        seconds.append(time.perf_counter() - begin)
    return program, round(min(seconds), 3)


def back(convert: Callable, ours: list, d_theirs) -> list:
    """A gradient in the project's layout; the conversion is linear, so its transpose."""

    @jax.jit  # as one program: on a device each operation would be compiled by itself
    def pulled(ours, d_theirs):
        return jax.vjp(convert, ours)[1](d_theirs)[0]

    return jax.tree.map(np.asarray, pulled(ours, d_theirs))
