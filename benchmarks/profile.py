"""Where the time of one gradient goes: each part of it alone, against its products.

python -m benchmarks.profile                   # writes benchmarks/results/profile.json
python -m benchmarks.profile --shapes 3 --cells lstm --out one.json

Each part of `layers.recurrent`, where it keeps the states alone (`layers.STATES`), runs in
a loop of its own over as many stretches as the gradient has. Beside it: its matrix products
alone, of the same sizes in the same kind of loop, and the same operations at the speed of
one large product. All in turns, with the whole gradient. A part that is faster than the
large product cannot have been run whole: the script then stops.
"""

import argparse
import functools
import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks import _cases, _clock, _floor, _machine
from benchmarks._contestants._bptt_jax import states
from bptt_jax import _pytrees as trees
from bptt_jax import cells, loops
from bptt_jax.cells._products import outer_sum
from bptt_jax.unrolls import default_chunk

RESULTS = pathlib.Path(__file__).parent / "results" / "profile.json"
SHAPES = (3, 6, 7, 8)
hold = lax.optimization_barrier


class Part(NamedTuple):
    """One part of a stretch, with the inputs it is given there.

    times: how often the gradient runs it in each stretch.
    flops: of its products.
    """

    run: Callable
    products: Callable
    inputs: tuple
    times: int
    flops: float


def parts(case: _cases.Case) -> tuple[int, dict[str, Part]]:
    """The number of stretches, and the parts of each."""
    B, T, I, H = case.B, case.T, case.I, case.H
    K = default_chunk(T, B * H)
    cell = getattr(cells, case.cell)(I, H)
    vjp, params = cell.vjp, _cases.weights(case)[0]
    params, xs = jax.tree.map(jnp.asarray, (params, _cases.inputs(case)[:K]))
    carry, us = cell.init_carry(params, (B,)), vjp.project(params, xs)
    ys, nexts = _forward(cell, params, carry, us, lambda *at: at[-1])
    carries = trees.before(carry, nexts)
    coeffs = cells.linearize(cell, params, carries, us, nexts)
    _, deltas = _reverse(cell, params, coeffs, ys, carry)
    w_x, w_h = params["w_x"], params["w_h"]
    h, d = jnp.ones((B, H)), jnp.ones((K, B, w_h.shape[1]))
    hs = jnp.ones((K, B, H))
    of_x, of_h = (2 * K * B * w.size for w in (w_x, w_h))
    return T // K, {
        "project": Part(
            vjp.project, lambda p, xs: _rows(xs) @ p["w_x"], (params, xs), 2, of_x
        ),
        "forward loop": Part(
            lambda p, c, us: _forward(cell, p, c, us, _others(cell)),
            lambda w, h: _loop(lambda h: (h @ w)[:, :H], h, K),
            ((params, carry, us), (w_h, h)),
            1,
            of_h,
        ),
        "linearize": Part(
            functools.partial(cells.linearize, cell),
            lambda w, hs: _rows(hs) @ w,
            ((params, carries, us, nexts), (w_h, hs)),
            1,
            of_h,
        ),
        "reverse loop": Part(
            lambda p, at, ys, c: _reverse(cell, p, at, ys, c),
            lambda w, h: _loop(
                lambda h: jnp.concatenate([h] * (w.shape[1] // H), -1) @ w.T, h, K
            ),
            ((params, coeffs, ys, carry), (w_h, h)),
            1,
            of_h,
        ),
        "contract": Part(
            functools.partial(cells.contract, cell),
            lambda p, xs, hs, d: (outer_sum(xs, d), outer_sum(hs, d), d @ p["w_x"].T),
            ((params, xs, carries, coeffs, deltas), (params, xs, hs, d)),
            1,
            2 * of_x + of_h,
        ),
    }


def _rows(a):
    return a.reshape(-1, a.shape[-1])


def _forward(cell, params, carry, us, keep):
    """The loop over steps alone, of inputs that are projected."""
    projected = cell._replace(vjp=cell.vjp._replace(project=lambda params, us: us))
    K = trees.length(us)
    return loops.step_by_step.forward(projected, params, carry, us, keep, K)[1:]


def _others(cell):
    """What a layer keeps of a step: the states that are no outputs."""

    def keep(params, carry, u, gates, after):
        outputs = {id(a) for a in jax.tree.leaves(cell.output(after))}
        return [a for a in jax.tree.leaves(after) if id(a) not in outputs]

    return keep


def _reverse(cell, params, coeffs, d_ys, d_carry):
    return loops.recurrence(cell, params, coeffs, d_carry, d_ys)


def _loop(product, h, K):
    return lax.scan(lambda h, _: (hold(product(h)), None), h, None, length=K)[0]


def repeated(f: Callable, inputs: tuple, n: int) -> Callable:
    """A call of n runs of f, each after the one before it, none of them left out."""

    @jax.jit
    def whole(inputs):
        def once(token, _):
            held, token = hold((inputs, token))
            out = hold(f(*held))
            seen = [a.reshape(-1)[0].astype(jnp.float32) for a in jax.tree.leaves(out)]
            return token + sum(seen), None

        return lax.scan(once, jnp.float32(0), None, length=n)[0]

    return lambda: jax.block_until_ready(whole(inputs))


def profile(case: _cases.Case, seconds: float) -> dict:
    stretches, found = parts(case)
    calls = {"gradient": states.build(case).gradient, _floor.PRODUCT: _floor.product()}
    for name, part in found.items():
        inputs = part.inputs
        theirs = inputs if name == "project" else inputs[1]
        ours = inputs if name == "project" else inputs[0]
        calls[name] = repeated(part.run, ours, stretches)
        calls[f"{name}: products"] = repeated(part.products, theirs, stretches)
    times = {
        n: _clock.summary(t) for n, t in _clock.interleaved(calls, seconds).items()
    }
    speed = 2 * _floor.N**3 / times[_floor.PRODUCT]["min"]  # operations a millisecond
    rows = {}
    for name, part in found.items():
        ms, products = times[name]["min"], times[f"{name}: products"]["min"]
        ideal = stretches * part.flops / speed
        if ms < 0.8 * ideal:
            raise AssertionError(f"{case.name}: {name} in {ms} ms, at best {ideal}")
        rows[name] = {
            "times": part.times,
            "ms": round(part.times * ms, 2),
            "products_ms": round(part.times * products, 2),
            "ideal_ms": round(part.times * ideal, 2),
        }
    return dict(
        name=case.name,
        chunk=case.T // stretches,
        gradient_ms=times["gradient"],
        parts=rows,
        product_ms=times[_floor.PRODUCT],
    )


def table(record: dict) -> str:
    """Milliseconds, a row a part."""
    lines = [
        f"| {record['name']} | ms | its products alone | at the large product's speed |",
        "|---|---|---|---|",
    ]
    total = dict.fromkeys(("ms", "products_ms", "ideal_ms"), 0.0)
    for name, row in record["parts"].items():
        often = "" if row["times"] == 1 else f" ({row['times']} times)"
        lines.append(f"| {name}{often} | " + _cells(row))
        total = {of: total[of] + row[of] for of in total}
    lines.append("| all parts | " + _cells(total))
    lines.append(f"| the gradient, measured | {record['gradient_ms']['min']:.1f} | | |")
    return "\n".join(lines)


def _cells(row: dict) -> str:
    return " | ".join(f"{row[n]:.1f}" for n in ("ms", "products_ms", "ideal_ms")) + " |"


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile")
    parser.add_argument("--shapes", nargs="+", type=int, default=SHAPES, metavar="N")
    parser.add_argument("--cells", nargs="+", default=("lstm", "gru"),
                        choices=tuple(_cases.GATES))  # fmt: skip
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args()
    if not all(1 <= n <= len(_cases.SHAPES) for n in args.shapes):
        raise SystemExit(f"--shapes: expected numbers from 1 to {len(_cases.SHAPES)}")
    result = _machine.describe("cpu") | dict(cases=[])
    for cell in args.cells:
        for n in args.shapes:
            _machine.wait_until_quiet(60)
            case = _cases.Case(cell, *_cases.SHAPES[n - 1])
            result["cases"].append(profile(case, args.seconds))
            args.out.write_text(json.dumps(result, indent=1) + "\n")
            print(table(result["cases"][-1]) + "\n", flush=True)


if __name__ == "__main__":
    main()
