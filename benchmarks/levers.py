"""What choices are worth on this machine: the time of the other form over ours.

python -m benchmarks.levers          # writes benchmarks/results/levers.json

outer_sum: a weight gradient as a straight product of a transposed copy; the other form
contracts the first axes of both. by_gate: a GRU's loop that reads each gate as an array
of its own; the other cuts the gates out of a row. columns: the products of an LSTM's two
loops with examples as rows; the other has them as columns. stored_gates: the gradient of
an LSTM and of a GRU that keep their states alone (`layers.STATES`); the other form keeps
the gates, 4 floats more for each unit and step (`layers.GATES`), instead of computing them
again, with its memory to ours.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks import _clock, _machine
from bptt_jax import cells, layers, unrolls
from bptt_jax.cells._products import outer_sum

RESULTS = pathlib.Path(__file__).parent / "results" / "levers.json"
PRODUCTS = ((256, 128, 512), (256, 512, 2048), (512, 256, 1024), (512, 1024, 4096))
LOOPS = ((32, 64, 128), (64, 64, 256), (30, 64, 100))
COLUMNS = ((32, 128), (64, 256), (32, 512), (64, 1024), (256, 64))
STORED = (
    (32, 128, 64, 128),
    (256, 128, 64, 64),
    (64, 256, 128, 256),
    (64, 64, 1024, 1024),
)
MAKE = {"lstm": cells.lstm, "gru": cells.gru}
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


def columns(B: int, H: int, K: int = 8) -> dict:
    """`h @ w_h` forward and `d_a @ w_hᵀ` back, K steps each."""
    w = jax.random.normal(jax.random.key(0), (H, 4 * H)) / H**0.5
    us, h = jnp.ones((K, B, 4 * H)), jnp.ones((B, H))
    hold = lax.optimization_barrier

    def whole(forth, back):
        def run(w, us, h):
            h, d_as = lax.scan(lambda h, u: _turn(jnp.tanh(u + forth(h, w)), H), h, us)
            return lax.scan(lambda d, a: (back(a * jnp.tile(d, 4), w), None), h, d_as)[
                0
            ]

        return run

    rows = whole(lambda h, w: h @ w, lambda d, w: d @ w.T)
    turned = whole(
        lambda h, w: hold(hold(w.T) @ hold(h.T)).T, lambda d, w: hold(w @ hold(d.T)).T
    )
    return compare(rows, turned, w, us, h)


def _turn(a, H: int):
    return a[:, :H], a


def stored_gates(cell: str, B: int, T: int, I: int, H: int) -> dict:
    made = MAKE[cell](I, H)
    params = made.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (T, B, I))

    def gradient(save):
        layer = layers.recurrent(made, save=save)

        def loss(params, xs):
            carry = layer.init_carry(params, (B,))
            return (unrolls.bptt(layer, params, carry, xs)[1] ** 2).sum()

        return jax.value_and_grad(loss, (0, 1))

    ours, other = gradient(layers.STATES), gradient(layers.GATES)
    values = [jax.jit(f)(params, xs) for f in (ours, other)]
    apart = max(
        float(abs(a - b).max() / (1 + abs(a).max()))
        for a, b in zip(*map(jax.tree.leaves, values), strict=True)
    )
    assert apart < 1e-4, apart
    bytes_ = [
        jax.jit(f).lower(params, xs).compile().memory_analysis().temp_size_in_bytes
        for f in (ours, other)
    ]
    return compare(ours, other, params, xs) | dict(
        memory=round(bytes_[1] / bytes_[0], 2)
    )


def main():
    levers = dict(
        outer_sum=(product, PRODUCTS),
        by_gate=(loop, LOOPS),
        columns=(columns, COLUMNS),
        stored_gates=(functools.partial(stored_gates, "lstm"), STORED),
        stored_gates_gru=(functools.partial(stored_gates, "gru"), STORED),
    )
    result = _machine.describe("cpu")
    for lever, (measure, shapes) in levers.items():
        result[lever] = {}
        for shape in shapes:
            found = result[lever][str(shape)] = measure(*shape)
            print(lever, shape, found["times_slower"], found.get("memory", ""))
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
