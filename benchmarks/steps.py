"""Microseconds of one step, as a server or a policy asks for it, and of what users would take.

python -m benchmarks.steps            # writes benchmarks/results/steps.json
python -m benchmarks.steps --quick    # the smallest, writes nothing

One example, or 32, a step: `unrolls.step` as it is called, and within a `jax.jit` of one's own
(which leaves out the checks of its arguments at each call); flax.linen's cell under `jax.jit`;
PyTorch's cell without gradients. Each begins from the state of the step before. In turns in one
process, the least and the median of some hundred steps each.
"""

import argparse
import functools
import json
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _clock, _machine
from benchmarks._agree import TOLERANCE

RESULTS = pathlib.Path(__file__).parent / "results" / "steps.json"
SHAPES = ((1, 64), (1, 256), (32, 256))
CELLS = ("lstm", "gru")
STEPS = 300


def ours(cell: str, B: int, H: int, params, x) -> dict[str, Callable]:
    """`{name: () -> output of the next step}`."""
    from bptt_jax import cells, unrolls

    model = getattr(cells, cell)(H, H)
    jitted = jax.jit(functools.partial(unrolls.step, model))
    start = model.init_carry(params, (B,))
    return {
        "unrolls.step": stepping(
            functools.partial(unrolls.step, model), params, start, x
        ),
        "unrolls.step in jit": stepping(jitted, params, start, x),
    }


def stepping(step: Callable, params, carry, x) -> Callable:
    kept = [carry]

    def next_output():
        kept[0], y = step(params, kept[0], x)
        return np.asarray(y)

    return next_output


def of_flax(cell: str, B: int, H: int, params, x) -> dict[str, Callable]:
    from flax import linen as nn

    from bptt_jax.interop.flax import to_params

    module = dict(lstm=nn.OptimizedLSTMCell, gru=nn.GRUCell)[cell](H)
    variables = {"params": jax.tree.map(jnp.asarray, to_params(params)["cell"])}
    carry = module.initialize_carry(jax.random.key(0), (B, H))
    return {"flax.linen": stepping(jax.jit(module.apply), variables, carry, x)}


def of_torch(cell: str, B: int, H: int, params, x) -> dict[str, Callable]:
    import torch

    module = dict(lstm=torch.nn.LSTMCell, gru=torch.nn.GRUCell)[cell](H, H)
    x, state = torch.from_numpy(np.array(x)), [None]

    def next_output():
        with torch.inference_mode():
            state[0] = module(x, state[0])
        return (state[0][0] if cell == "lstm" else state[0]).numpy()

    return {"torch": next_output}


def measured(cell: str, B: int, H: int, rounds: int) -> dict:
    from bptt_jax import cells

    params = getattr(cells, cell)(H, H).init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (B, H))
    calls = ours(cell, B, H, params, x) | of_flax(cell, B, H, params, x)
    first = {name: [call() for _ in range(3)] for name, call in calls.items()}
    for name, found in first.items():  # PyTorch has weights of its own
        np.testing.assert_allclose(
            found, first["unrolls.step"], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
        )
    calls |= of_torch(cell, B, H, params, x)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in [*calls, *reversed(calls)]:
            begin = time.perf_counter()
            for _ in range(STEPS):
                calls[name]()
            times[name].append(1e6 * (time.perf_counter() - begin) / STEPS)
    rows = {name: _clock.summary(each) for name, each in times.items()}
    return dict(cell=cell, B=B, H=H, microseconds=rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps")
    parser.add_argument("--quick", action="store_true", help="the smallest shape")
    parser.add_argument("--rounds", type=int, default=5, help="there and back")
    parser.add_argument(
        "--patience", type=float, default=120.0, help="for a quiet machine"
    )
    args = parser.parse_args()
    shapes = SHAPES[:1] if args.quick else SHAPES
    busy = _machine.wait_until_quiet(0.0 if args.quick else args.patience)
    records = []
    for B, H in shapes:
        for cell in CELLS:
            record = measured(cell, B, H, 1 if args.quick else args.rounds)
            records.append(record)
            least = {n: round(r["min"], 1) for n, r in record["microseconds"].items()}
            print(f"{cell:5} B = {B:3} H = {H:4}  {least}", flush=True)
    if not args.quick:
        what = dict(busy_before=round(busy, 3), steps=STEPS, cases=records)
        RESULTS.write_text(json.dumps(_machine.describe("cpu") | what, indent=1) + "\n")


if __name__ == "__main__":
    main()
