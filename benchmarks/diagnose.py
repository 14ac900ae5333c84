"""What looking at the gradient costs beyond the gradient.

python -m benchmarks.diagnose             # writes benchmarks/results/diagnose.json
python -m benchmarks.diagnose --quick     # one small shape, writes nothing

One recurrent layer and a dense one, loss a squared error. In turns, and by XLA's account of
temporary memory: the gradient alone (`estimators.exact`), `diagnose.gradient_flow` (dL/dh_t
for all t), `diagnose.contributions` (the norms of each step's weight gradients, too). The
recorded array is an output and no temporary memory; its size is told by itself.
"""

import argparse
import functools
import json
import pathlib

import jax
import jax.numpy as jnp

from benchmarks import _clock, _machine
from bptt_jax import Batch, Side, cells, diagnose, estimators, layers, objectives

RESULTS = pathlib.Path(__file__).parent / "results" / "diagnose.json"
SHAPES = ((32, 128, 64, 128), (64, 256, 128, 256), (1, 1000, 64, 64))
QUICK = ((4, 32, 8, 16),)
MAKE = {"lstm": cells.lstm, "gru": cells.gru}
LOSS = objectives.squared_error


def programs(make, B: int, T: int, I: int, H: int):
    """Compiled `(params, batch) -> …` by name, and their arguments."""
    model = layers.stack(layers.recurrent(make(I, H)), layers.dense(H, H))
    params = model.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (T, B, I))
    batch = Batch(xs, Side(targets=jnp.zeros((T, B, H))))
    key, exact = jax.random.key(2), estimators.exact(model, LOSS)
    looks = (diagnose.gradient_flow, diagnose.contributions)
    each = {
        "gradient": lambda p, b: exact.grad(p, (), b, key)[:2],
        **{f.__name__: functools.partial(f, model, LOSS) for f in looks},
    }
    at = params, batch
    return {name: jax.jit(f).lower(*at).compile() for name, f in each.items()}, at


def case(cell: str, shape: tuple[int, int, int, int], seconds: float) -> dict:
    made, at = programs(MAKE[cell], *shape)
    calls = {
        name: functools.partial(lambda f: jax.block_until_ready(f(*at)), f)
        for name, f in made.items()
    }
    times = {
        name: _clock.summary(ms)
        for name, ms in _clock.interleaved(calls, seconds).items()
    }
    temp = {n: f.memory_analysis().temp_size_in_bytes for n, f in made.items()}
    flow = jax.tree.leaves(made["gradient_flow"](*at).d_states)
    first = times["gradient"]
    ratios = {
        name: dict(
            time={k: round(t[k] / first[k], 3) for k in ("min", "median")},
            memory=round(temp[name] / temp["gradient"], 3),
        )
        for name, t in times.items()
        if name != "gradient"
    }
    return dict(
        cell=cell, shape=shape, milliseconds=times, temp_bytes=temp,
        recorded_bytes=sum(a.nbytes for a in flow), to_gradient=ratios,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnose")
    parser.add_argument("--quick", action="store_true", help="one small shape")
    args = parser.parse_args()
    cases = []
    for shape in QUICK if args.quick else SHAPES:
        for cell in MAKE:
            found = case(cell, shape, 0.2 if args.quick else 8.0)
            cases.append(found)
            told = ", ".join(
                f"{name} {r['time']['min']:.2f} ({r['time']['median']:.2f}) of the time, "
                f"{r['memory']:.2f} of the memory"
                for name, r in found["to_gradient"].items()
            )
            print(f"{cell} (B, T, I, H) = {shape}: {told}", flush=True)
    if not args.quick:
        found = _machine.describe("cpu") | dict(cases=cases)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
