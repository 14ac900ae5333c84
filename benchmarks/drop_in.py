"""What changing the import of flax's RNN to that of `bptt_jax.interop` is worth.

python -m benchmarks.drop_in            # writes benchmarks/results/drop_in.json
python -m benchmarks.drop_in --quick    # the smallest shape, writes nothing

A layer in flax's own layout (`[B, T, I]`) on the same weights: time of loss and gradients
of weights and inputs, in turns in one process, and XLA's temporary memory.
"""

import argparse
import gc
import json
import pathlib

import flax.linen
import flax.nnx

from benchmarks import _clock, _machine
from benchmarks._agree import TOLERANCE, difference
from benchmarks._cases import Case
from benchmarks._contestants import _linen, _nnx
from benchmarks._contestants._contract import by_layer
from bptt_jax.interop import linen, nnx

RESULTS = pathlib.Path(__file__).parent / "results" / "drop_in.json"
SHAPES = ((16, 50, 2, 16), (32, 128, 64, 128), (256, 128, 64, 64), (64, 256, 128, 256))
CELLS = ("lstm", "gru")
LIBRARIES = dict(
    linen=(_linen.layers_of, flax.linen.RNN, linen.RNN),
    nnx=(_nnx.layers_of, flax.nnx.RNN, nnx.RNN),
)


def measured(library: str, case: Case, seconds: float) -> dict:
    """Both programs of a case, and how many times faster and leaner ours is."""
    layers_of, *modules = LIBRARIES[library]
    programs = {
        name: by_layer(name, layers_of(RNN, time_major=False), batch_major=True).build(
            case
        )
        for name, RNN in zip(("flax", "ours"), modules, strict=True)
    }
    answers = [program.answers() for program in programs.values()]
    apart = difference(answers[1], answers[0])
    if not apart <= TOLERANCE:
        raise AssertionError(f"{library}, {case.name}: apart from flax by {apart}")
    times = _clock.interleaved({n: p.gradient for n, p in programs.items()}, seconds)
    rows = {
        name: dict(
            gradient_ms=_clock.summary(times[name]),
            temp_bytes=program.temp_bytes,
            compile_s=program.compile_s,
        )
        for name, program in programs.items()
    }
    programs.clear()
    gc.collect()
    return dict(
        case._asdict(), library=library, name=case.name, rows=rows,
        difference=float(f"{apart:.2g}"), **ratios(rows),
    )  # fmt: skip


def ratios(rows: dict) -> dict:
    """flax over ours: above 1 ours is faster, or takes less memory."""
    flax, ours = rows["flax"], rows["ours"]

    def faster(of: str) -> float:
        return round(flax["gradient_ms"][of] / ours["gradient_ms"][of], 3)

    return dict(
        faster=faster("min"),
        faster_median=faster("median"),
        leaner=round(flax["temp_bytes"] / ours["temp_bytes"], 3),
    )


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drop_in")
    parser.add_argument("--quick", action="store_true", help="the smallest shape")
    parser.add_argument("--seconds", type=float, default=20.0, help="a case, about")
    parser.add_argument(
        "--patience", type=float, default=600.0, help="for a quiet machine"
    )
    args = parser.parse_args()
    shapes, seconds = (SHAPES[:1], 0.5) if args.quick else (SHAPES, args.seconds)
    busy = _machine.wait_until_quiet(0.0 if args.quick else args.patience)
    records = []
    for library in LIBRARIES:
        for case in [Case(cell, *shape) for shape in shapes for cell in CELLS]:
            r = measured(library, case, seconds)
            records.append(r)
            print(
                f"{library:6}{r['name']:24}{r['faster']:6.2f} times faster (median "
                f"{r['faster_median']:.2f}), {r['leaner']:.2f} times less temporary memory",
                flush=True,
            )
    if not args.quick:
        what = dict(busy_before=round(busy, 3), seconds=seconds, cases=records)
        RESULTS.write_text(json.dumps(_machine.describe("cpu") | what, indent=1) + "\n")


if __name__ == "__main__":
    main()
