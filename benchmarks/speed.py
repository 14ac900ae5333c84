"""Time of one training gradient, as a ratio to `jax.grad` of the scan of the same cell.

`python benchmarks/speed.py` interleaves the contestants in one process, prints minimum
and median, and writes `benchmarks/results/speed.json`. Run it on a quiet machine.
"""

import functools
import json
import pathlib
import platform
import statistics
import time

import jax
import jax.numpy as jnp
from _machine import vector_instructions
from memory import EMBEDDING, SYMBOLS, B, H, I, T, remat_scan

from bptt_jax import Side, cells, layers, models, objectives, unrolls

RESULTS = pathlib.Path(__file__).parent / "results" / "speed.json"
ROUNDS = 7


def interleaved(contestants: dict, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Milliseconds of each call, in rounds that go there and back (A B C C B A)."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        jax.block_until_ready(call())
    order = list(contestants)
    for _ in range(rounds):
        for name in [*order, *reversed(order)]:
            begin = time.perf_counter()
            jax.block_until_ready(contestants[name]())
            times[name].append(1e3 * (time.perf_counter() - begin))
    return times


def cell_contestants(cell) -> dict:
    params = cell.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (T, B, I))
    lean = layers.remat(layers.recurrent(cell))
    unrolled = {
        "jax.grad of lax.scan": functools.partial(unrolls.scan, cell),
        "its body under jax.checkpoint": functools.partial(remat_scan, cell),
        "bptt": functools.partial(unrolls.bptt, cell),
        "bptt, remat": functools.partial(unrolls.bptt, lean),
    }

    def gradient(unrolled):
        def loss(params, xs):
            _, ys = unrolled(params, cell.init_carry(params, (B,)), xs)
            return (ys**2).sum()

        return functools.partial(jax.jit(jax.value_and_grad(loss, (0, 1))), params, xs)

    return {name: gradient(f) for name, f in unrolled.items()}


def character_contestants() -> dict:
    cell = cells.lstm(EMBEDDING, H)
    model = models.symbols(SYMBOLS, EMBEDDING, (cell,), SYMBOLS, H)
    params = model.init(jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (T, B), 0, SYMBOLS)
    layer = layers.with_loss(model, objectives.softmax_cross_entropy)

    def plain(params):
        xs = params[0]["embedding"][tokens]
        carry = cell.init_carry(params[1], (B,))
        _, hs = unrolls.scan(cell, params[1], carry, xs)
        logits = hs @ params[2]["kernel"] + params[2]["bias"]
        return objectives.softmax_cross_entropy(logits, tokens).sum()

    def whole(layer, params):
        carry, side = layer.init_carry(params, (B,)), Side(targets=tokens)
        return unrolls.bptt(layer, params, carry, tokens, side)[1].sum()

    losses = {
        "jax.grad of lax.scan": plain,
        "bptt": functools.partial(whole, layer),
        "bptt, remat": functools.partial(whole, layers.remat(layer)),
    }
    return {
        name: functools.partial(jax.jit(jax.value_and_grad(f)), params)
        for name, f in losses.items()
    }


def summary(times: dict[str, list[float]]) -> dict:
    base = times["jax.grad of lax.scan"]
    return {
        name: dict(
            min_ms=round(min(t), 2),
            ratio_of_minima=round(min(t) / min(base), 3),
            ratio_of_medians=round(statistics.median(t) / statistics.median(base), 3),
        )
        for name, t in times.items()
    }


def main():
    rows = {}
    for make in (cells.elman, cells.lstm, cells.gru):
        rows[make.__name__] = summary(interleaved(cell_contestants(make(I, H))))
        print(make.__name__, rows[make.__name__], flush=True)
        jax.clear_caches()
    rows["character model"] = summary(interleaved(character_contestants()))
    print("character model", rows["character model"])
    result = dict(
        jax=jax.__version__,
        machine=platform.machine(),
        vector_instructions=vector_instructions(),
        shape=dict(B=B, T=T, I=I, H=H),
        dtype=str(jnp.float32.dtype),
        time=rows,
    )
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
