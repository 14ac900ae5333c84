"""The exact gradient of very long sequences, within a number of bytes.

python -m benchmarks.long             # writes benchmarks/results/long.json
python -m benchmarks.long --quick     # up to 10,000 steps, writes nothing

An LSTM (16 inputs, 64 units, one example), loss a mean of squares: folded into the loop
(`layers.with_loss`) with the gradient of the parameters, for each number of steps and each
budget; and outside of it, of all outputs, with the gradient of parameters and inputs.
Bytes: XLA's temporary memory, and the rise of resident memory during the call (Linux).
Time: the least of three calls; of `bptt` beside it in turns.
"""

import argparse
import functools
import json
import pathlib

import jax

from benchmarks import _clock, _machine, _resident
from bptt_jax import cells, layers, unrolls

RESULTS = pathlib.Path(__file__).parent / "results" / "long.json"
I, H = 16, 64
CELL = cells.lstm(I, H)
STEPS = (1_000, 10_000, 100_000, 1_000_000)
BUDGETS = (200_000, 1_000_000, 10_000_000, 100_000_000)
REFERENCE = 10_000


def squares(ys, targets):
    del targets
    return (ys * ys).mean(-1)


FOLDED = layers.with_loss(layers.recurrent(CELL), squares)


def arguments(T: int):
    params = CELL.init(jax.random.key(0))
    return params, jax.random.normal(jax.random.key(1), (T, 1, I))


def folded(unroll):
    def loss(params, xs):
        carry = CELL.init_carry(params, (1,))
        return unroll(FOLDED, params, carry, xs)[1].mean()

    return jax.grad(loss)


def outside(unroll):
    def loss(params, xs):
        carry = CELL.init_carry(params, (1,))
        return squares(unroll(CELL, params, carry, xs)[1], None).mean()

    return jax.grad(loss, (0, 1))


def compiled(gradient, *at):
    program = jax.jit(gradient).lower(*at).compile()
    return program, program.memory_analysis().temp_size_in_bytes


def measured(gradient, T: int, budget: int, plan: unrolls.Plan) -> dict:
    at = arguments(T)
    unroll = functools.partial(unrolls.checkpointed, memory=budget)
    program, temp = compiled(gradient(unroll), *at)
    by_bptt, temp_bptt = compiled(folded(unrolls.bptt), *arguments(REFERENCE))
    reference = arguments(REFERENCE)
    calls = {
        "checkpointed": lambda: jax.block_until_ready(program(*at)),
        "bptt": lambda: jax.block_until_ready(by_bptt(*reference)),
    }
    rise = _resident.rise(calls["checkpointed"])
    times = _clock.interleaved(calls, 0.0, (1, 1))
    a_step = {
        name: 1e3 * min(ms) / steps
        for (name, ms), steps in zip(times.items(), (T, REFERENCE), strict=True)
    }
    return dict(
        T=T,
        chunk=plan.chunk,
        slots=plan.slots,
        kept=plan.kept,
        recomputation=round(plan.recomputation, 3),
        predicted_bytes=plan.bytes,
        temp_bytes=temp,
        resident_bytes=rise,
        input_bytes=at[1].nbytes,
        us_a_step=round(a_step["checkpointed"], 3),
        to_bptt=round(a_step["checkpointed"] / a_step["bptt"], 2),
        bptt_temp_bytes_at_reference=temp_bptt,
    )


def planned(layer, T: int, memory: int) -> unrolls.Plan | str:
    at = jax.eval_shape(lambda: arguments(T))
    carry = jax.eval_shape(lambda p: CELL.init_carry(p, (1,)), at[0])
    try:
        return unrolls.plan(layer, at[0], carry, at[1], memory=memory)
    except ValueError as error:
        return str(error)


def show(budget: int, T: int, row: dict | str):
    if isinstance(row, str):
        return print(f"{T:>9,} steps within {budget / 1e6:6.1f} MB: {row}")
    print(
        f"{T:>9,} steps within {budget / 1e6:6.1f} MB: K {row['chunk']:4} slots "
        f"{row['slots']:4} kept {row['kept']:3} runs again x {row['recomputation']:.2f}, temp "
        f"{row['temp_bytes'] / 1e6:7.2f} MB (predicted {row['predicted_bytes'] / 1e6:7.2f}, "
        f"resident {row['resident_bytes'] / 1e6:7.1f}), {row['us_a_step']:.2f} us a step, "
        f"{row['to_bptt']:.2f} of bptt's",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long")
    parser.add_argument("--quick", action="store_true", help="up to 10,000 steps")
    args = parser.parse_args()
    _resident.give_back_at_once()
    result = _machine.describe("cpu") | dict(folded=[], outside=[])
    for T in STEPS[:2] if args.quick else STEPS:
        for budget in BUDGETS:
            plan = planned(FOLDED, T, budget)
            row = plan if isinstance(plan, str) else measured(folded, T, budget, plan)
            show(budget, T, row)
            result["folded"].append(dict(budget=budget, T=T, row=row))
        # outputs and their cotangents, and some room for states
        budget = 2 * 4 * T * H + BUDGETS[1]
        plan = planned(layers.recurrent(CELL), T, budget)
        row = plan if isinstance(plan, str) else measured(outside, T, budget, plan)
        print("outputs outside the loop:")
        show(budget, T, row)
        result["outside"].append(dict(budget=budget, T=T, row=row))
    if not args.quick:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
