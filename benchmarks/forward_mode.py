"""Forward mode and second derivatives through an unroll: time, and XLA's temp memory.

python -m benchmarks.forward_mode            # writes benchmarks/results/forward_mode.json
python -m benchmarks.forward_mode --quick    # one small shape, writes nothing

The loss is half the mean of squared outputs, the derivative one with respect to the
parameters. gradient: reverse mode. jvp: along one direction. jacobian: `jax.jacfwd` along
8 directions. pushed: `jax.linearize` and one call of what it gives. The products of the
Hessian with a vector: hvp (`jvp` of `grad`), hvp, forward inside (`grad` of `jvp`), hvp,
reverse twice (`grad` of `grad`). hessian: `jax.hessian` in 8 directions.

`bptt` is a `custom_vjp`, so it has none of those that JAX asks a jvp of itself for.
Times in turns in one process; ratios are to `unrolls.scan`, of the least and the middle
time. All of one operation agree to 1e-3 of the largest entry, or the run ends.
"""

import argparse
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _clock, _machine
from bptt_jax import cells, unrolls

RESULTS = pathlib.Path(__file__).parent / "results" / "forward_mode.json"
CELLS = dict(lstm=cells.lstm, gru=cells.gru)
SHAPES = ((200, 32, 64, 128),)  # T, B, I, H
DIRECTIONS, TOLERANCE, SECONDS = 8, 1e-3, 2.0
UNROLLS = dict(scan=unrolls.scan, bptt=unrolls.bptt, both_modes=unrolls.both_modes)


def total(tree, other):
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return sum(jnp.vdot(a, b) for a, b in pairs)


def moved(params, directions, by):
    """The parameters moved along each direction."""
    return jax.tree.map(lambda a, d: a + jnp.tensordot(by, d, 1), params, directions)


def along(f):
    """`f` as a function of how far one goes along each direction, at nought."""

    def run(derivative, params, directions):
        def at(by):
            return f(moved(params, directions, by))

        return derivative(at)(jnp.zeros(DIRECTIONS))

    return run


def one(directions):
    return jax.tree.map(lambda d: d[0], directions)


OPERATIONS = {  # (loss, params, directions) -> arrays
    "gradient": lambda f, p, d: jax.value_and_grad(f)(p),
    "jvp": lambda f, p, d: jax.jvp(f, (p,), (one(d),)),
    "jacobian": lambda f, p, d: along(f)(jax.jacfwd, p, d),
    "pushed": lambda f, p, d: jax.linearize(f, p)[1](one(d)),
    "hvp": lambda f, p, d: jax.jvp(jax.grad(f), (p,), (one(d),))[1],
    "hvp, forward inside": lambda f, p, d: jax.grad(
        lambda p: jax.jvp(f, (p,), (one(d),))[1]
    )(p),
    "hvp, reverse twice": lambda f, p, d: jax.grad(
        lambda p: total(jax.grad(f)(p), one(d))
    )(p),
    "hessian": lambda f, p, d: along(f)(jax.hessian, p, d),
}
NOT_OF_BPTT = ("jvp", "jacobian", "pushed", "hvp, forward inside")


def problem(name: str, shape: tuple[int, int, int, int]):
    """The losses by unroll, and their arguments."""
    T, B, I, H = shape
    cell = CELLS[name](I, H)
    k_params, k_xs, k_directions = jax.random.split(jax.random.key(0), 3)
    params = cell.init(k_params)
    xs = jax.random.normal(k_xs, (T, B, I))
    directions = jax.tree.map(
        lambda a: jax.random.normal(k_directions, (DIRECTIONS, *a.shape)) * 0.1, params
    )

    def loss(unroll):
        def of(params, xs):
            carry = cell.init_carry(params, (B,))
            return jnp.mean(unroll(cell, params, carry, xs)[1] ** 2) / 2

        return of

    return {u: loss(unroll) for u, unroll in UNROLLS.items()}, (params, directions, xs)


def difference(answer, reference) -> float:
    """The largest of any array, relative to the largest value in it."""
    pairs = zip(jax.tree.leaves(answer), jax.tree.leaves(reference), strict=True)
    return max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in pairs
    )


def measured(operation, losses: dict, arguments: tuple, seconds: float) -> dict:
    compiled = {
        unroll: jax.jit(
            lambda p, d, xs, f=f: operation(lambda q: f(q, xs), p, d)
        ).lower(*arguments).compile()
        for unroll, f in losses.items()
    }  # fmt: skip
    reference = compiled["scan"](*arguments)
    for unroll, f in compiled.items():
        off = difference(f(*arguments), reference)
        if off > TOLERANCE:
            raise SystemExit(f"{unroll} differs from scan by {off:.1e}")
    times = _clock.interleaved(
        {
            unroll: lambda f=f: jax.block_until_ready(f(*arguments))
            for unroll, f in compiled.items()
        },
        seconds,
    )
    ms = {unroll: _clock.summary(times[unroll]) for unroll in compiled}
    return {
        unroll: dict(
            ms=ms[unroll],
            temp_bytes=f.memory_analysis().temp_size_in_bytes,
            to_scan={
                of: round(ms[unroll][of] / ms["scan"][of], 3)
                for of in ("min", "median")
            },
        )
        for unroll, f in compiled.items()
    }


def case(name: str, shape: tuple[int, int, int, int], seconds: float) -> dict:
    losses, arguments = problem(name, shape)
    T, B, I, H = shape
    rows = {}
    for operation, f in OPERATIONS.items():
        chosen = {
            unroll: loss
            for unroll, loss in losses.items()
            if unroll != "bptt" or operation not in NOT_OF_BPTT
        }
        rows[operation] = measured(f, chosen, arguments, seconds)
        for unroll, row in rows[operation].items():
            units = row["temp_bytes"] / (4 * T * B * H)
            print(f"{name} {shape} {operation}: {unroll} {row['ms']['min']:.2f} ms, "
                  f"{row['to_scan']['min']:.2f} of scan, {units:.2f} T·B·H floats",
                  flush=True)  # fmt: skip
    return dict(cell=name, T=T, B=B, I=I, H=H, operations=rows)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forward_mode")
    parser.add_argument("--quick", action="store_true", help="one small shape")
    quick = parser.parse_args().quick
    shapes, seconds = (((20, 4, 8, 16),), 0.05) if quick else (SHAPES, SECONDS)
    cases = [case(name, shape, seconds) for shape in shapes for name in CELLS]
    if not quick:
        result = _machine.describe("cpu") | dict(directions=DIRECTIONS, cases=cases)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
