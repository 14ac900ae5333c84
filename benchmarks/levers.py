"""What the choices in `bptt_jax.cells._products` are worth on this machine.

python -m benchmarks.levers          # writes benchmarks/results/levers.json

outer_sum: a weight gradient as a straight product of a transposed copy, to contracting
the first axes of both. by_gate: a GRU's loop that reads each gate as an array of its own,
to one that cuts the gates out of a row. Both as the time of the other form over ours.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks import _clock, _machine
from bptt_jax.cells._products import outer_sum

RESULTS = pathlib.Path(__file__).parent / "results" / "levers.json"
PRODUCTS = ((256, 128, 512), (256, 512, 2048), (512, 256, 1024), (512, 1024, 4096))
LOOPS = ((32, 64, 128), (64, 64, 256), (30, 64, 100))
SECONDS = 2.0


def compare(ours, other, *arguments) -> dict:
    compiled = {n: jax.jit(f).lower(*arguments).compile() for n, f in
                (("ours", ours), ("other", other))}  # fmt: skip
    times = _clock.interleaved(
        {
            n: lambda c=c: jax.block_until_ready(c(*arguments))
            for n, c in compiled.items()
        },
        SECONDS,
    )
    ours_ms, other_ms = (_clock.summary(times[n]) for n in ("ours", "other"))
    ratios = {of: round(other_ms[of] / ours_ms[of], 2) for of in ("min", "median")}
    return dict(ours_ms=ours_ms, other_ms=other_ms, times_slower=ratios)


def product(rows: int, m: int, n: int) -> dict:
    """`[rows, m]ᵀ @ [rows, n]`, eight times in a loop."""
    a = jax.random.normal(jax.random.key(0), (8, rows, m))
    d = jax.random.normal(jax.random.key(1), (8, rows, n))

    def by_axes(a, d):
        return lax.dot_general(a, d, (((0,), (0,)), ((), ())))

    def summed(product):
        return lambda a, d: lax.scan(
            lambda total, at: (total + product(*at), None), jnp.zeros((m, n)), (a, d)
        )[0]

    return compare(summed(outer_sum), summed(by_axes), a, d)


def loop(B: int, T: int, H: int) -> dict:
    """The forward loop of a GRU."""
    w_h = jax.random.normal(jax.random.key(0), (H, 3 * H)) / H**0.5
    us = jax.random.normal(jax.random.key(1), (T, B, 3 * H))

    def step(h, gates):
        a_r, a_z, a_n = gates
        q_r, q_z, q_n = jnp.split(h @ w_h, 3, -1)
        r, z = jax.nn.sigmoid(a_r + q_r), jax.nn.sigmoid(a_z + q_z)
        n = jnp.tanh(a_n + r * q_n)
        return n + z * (h - n), None

    def apart(us):
        gates = lax.optimization_barrier(tuple(jnp.split(us, 3, -1)))
        return lax.scan(step, jnp.zeros((B, H)), gates)[0]

    def cut(us):
        whole = lambda h, u: step(h, jnp.split(u, 3, -1))  # noqa: E731
        return lax.scan(whole, jnp.zeros((B, H)), us)[0]

    return compare(apart, cut, us)


def main():
    result = _machine.describe("cpu") | dict(
        outer_sum={str(shape): product(*shape) for shape in PRODUCTS},
        by_gate={str(shape): loop(*shape) for shape in LOOPS},
    )
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    for lever in ("outer_sum", "by_gate"):
        for shape, found in result[lever].items():
            print(lever, shape, found["times_slower"])


if __name__ == "__main__":
    main()
