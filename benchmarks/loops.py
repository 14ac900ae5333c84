"""Gradients by each loop, in turns in one process.

python -m benchmarks.loops            # 26 cases, about 5 minutes
python -m benchmarks.loops --bfloat16 # what is stored in it, 15 cases
python -m benchmarks.loops --quick

Of each loop: time of a call, of tracing and lowering, of compiling (with kernels that no
process has compiled before, and with those on disk), XLA's temporary memory. A ratio is that
of `step_by_step` over the other loop's. Of single LSTMs also the same equations written as a
step (`cells.from_step`), whose derivative JAX takes: `own`, the time of the library's LSTM over
theirs, both native. Writes benchmarks/results/loops.json, or loops-bfloat16.json.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time

from benchmarks import _cases, _clock, _machine

RESULTS = pathlib.Path(__file__).parent / "results"
IN_BFLOAT16 = (*_cases.SHAPES[1:3], *_cases.SHAPES[4:7])
SECONDS = 3.0
OWN = "native, from_step"


def own_lstm(n_in: int, H: int):
    """An LSTM's equations as a user writes them."""
    import jax
    import jax.numpy as jnp

    from bptt_jax import cells

    library = cells.lstm(n_in, H)

    def step(params, carry, x):
        h, c = carry
        sums = x @ params["w_x"] + h @ params["w_h"] + params["b"]
        i, f, g, o = jnp.split(sums, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def init_carry(params, batch):
        return tuple(library.init_carry(params, batch))

    return cells.from_step(step, library.init, init_carry)


def programs(
    case: _cases.Case, loop, make=None, dtype: str = "float32"
) -> tuple[dict, object]:
    """What compiling a gradient took, and the call of it.

    make: of the cell, `(n_in, H)`; None: the library's.
    dtype: of weights and inputs.
    """
    import jax
    import jax.numpy as jnp

    from bptt_jax import cells, layers, unrolls

    make = make or getattr(cells, case.cell)
    parts = [layers.recurrent(make(n, case.H), loop=loop) for n in case.sizes]
    model = layers.stack(*parts) if case.depth > 1 else parts[0]
    stored = lambda a: jnp.asarray(a, dtype)
    params = [jax.tree.map(stored, layer) for layer in _cases.weights(case)]
    params = tuple(params) if case.depth > 1 else params[0]
    xs = stored(_cases.inputs(case))

    def loss(params, xs):
        carry = model.init_carry(params, (case.B,))
        ys = unrolls.bptt(model, params, carry, xs)[1]
        return (ys.astype(jnp.float32) ** 2).sum()

    begin = time.perf_counter()
    lowered = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, xs)
    traced = time.perf_counter()
    program = lowered.compile()
    done = time.perf_counter()
    found = dict(
        trace_s=traced - begin,
        compile_s=done - traced,
        temp=program.memory_analysis().temp_size_in_bytes,
    )
    jax.clear_caches()
    return found, lambda: jax.block_until_ready(program(params, xs))


def compare(case: _cases.Case, seconds: float, dtype: str) -> dict:
    from bptt_jax import loops

    rows, calls = {}, {}
    for loop in (loops.step_by_step, loops.native):
        name = loop.name.removeprefix("loops.")
        rows[name], calls[name] = programs(case, loop, dtype=dtype)
    again, _ = programs(case, loops.native, dtype=dtype)  # its kernels are there
    rows["native"]["again_s"] = again["trace_s"] + again["compile_s"]
    if case.cell == "lstm" and case.depth == 1 and dtype == "float32":
        rows[OWN], calls[OWN] = programs(case, loops.native, own_lstm)
    for call in calls.values():
        call()
    once = sum(_clock.timed(call) for call in calls.values()) / 1e3
    times = {name: [] for name in calls}
    for _ in range(max(4, min(60, round(seconds / (2 * once))))):
        for name in [*calls, *reversed(calls)]:
            times[name].append(_clock.timed(calls[name]))
    return {name: row | _clock.summary(times[name]) for name, row in rows.items()}


def ratios(rows: dict) -> dict:
    plain, native = rows["step_by_step"], rows["native"]
    keys = [k for k in native if k in plain and k != "calls" and native[k]]
    found = {key: round(plain[key] / native[key], 3) for key in keys}
    if OWN in rows:
        found["own"] = round(native["min"] / rows[OWN]["min"], 3)
    return found


def main() -> None:
    as_written = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--quick", action="store_true", help="two shapes")
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each case")
    parser.add_argument("--bfloat16", action="store_true", help="stored in bfloat16")
    parser.add_argument("--out", type=pathlib.Path)
    given = parser.parse_args()
    dtype, name, shapes = "float32", "loops.json", _cases.SHAPES
    if given.bfloat16:
        dtype, name, shapes = "bfloat16", "loops-bfloat16.json", IN_BFLOAT16
    out = given.out or RESULTS / name
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    result = _machine.describe("cpu") | dict(dtype=dtype, cases={})
    with tempfile.TemporaryDirectory() as cold:  # no kernels of an earlier run
        os.environ["XDG_CACHE_HOME"] = cold
        for case in _cases.all_cases(_cases.QUICK if given.quick else shapes):
            if given.only not in case.name:
                continue
            rows = compare(case, given.seconds, dtype)
            found = ratios(rows)
            result["cases"][case.name] = dict(rows=rows, ratios=found)
            print(f"{case.name:32}", found, flush=True)
            out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
