"""The same recurrent networks in this project and in what users would take instead.

python -m benchmarks.run                      # everything
python -m benchmarks.run --quick              # two small shapes
python -m benchmarks.run --cells lstm --shapes 3 6 --out lstm.json
python -m benchmarks.run --device gpu

Measures one training gradient, the forward pass alone, XLA's temp memory, the peak of
resident memory and the time of compilation, in turns in one process; asserts first that
all contestants agree. Writes JSON after each case, a figure, and prints tables.
"""

import argparse
import json
import os
import pathlib
import time

RESULTS = pathlib.Path(__file__).parent / "results"


def parse():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="two small shapes only")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--cells", nargs="+", choices=("elman", "lstm", "gru"))
    parser.add_argument(
        "--shapes", nargs="+", type=int, metavar="N", help="by number, 1 to 8"
    )
    parser.add_argument("--seconds", type=float, help="of timing for each case")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contestants")
    parser.add_argument(
        "--patience", type=float, default=120, help="for a quiet machine"
    )
    parser.add_argument("--out", type=pathlib.Path, help="the JSON that is written")
    parser.add_argument(
        "--update", action="store_true", help="only these cases of what is in --out"
    )
    return parser.parse_args()


def main():
    args = parse()
    if args.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # compiling is measured

    from benchmarks import (
        _cases,
        _machine,
        _measure,
        _report,
        _resident,
        _training_step,
    )

    shapes = _cases.QUICK if args.quick else _cases.SHAPES
    if args.shapes:
        if not all(1 <= n <= len(shapes) for n in args.shapes):
            raise SystemExit(f"--shapes: expected numbers from 1 to {len(shapes)}")
        shapes = [shapes[n - 1] for n in args.shapes]
    cases = [
        case
        for case in _cases.all_cases(shapes)
        if (not args.cells or case.cell in args.cells)
        and not (args.quick and case.depth > 1)
    ]
    seconds = args.seconds or (2.0 if args.quick else 20.0)
    name = "quick" if args.quick else args.device
    out = args.out or RESULTS / f"peers-{name}.json"
    result = _machine.describe(args.device) | dict(busy={}, missing={}, cases=[])
    contestants, result["missing"] = _measure.entrants(args.device, args.only)
    for name, reason in result["missing"].items():
        print(f"{name} is not installed and takes no part: {reason}")
    others, commit = [], result["commit"]
    if args.update:
        if not out.exists():
            raise SystemExit(f"--update: expected results in {out}, there are none")
        result = json.loads(out.read_text())
        names = {case.name for case in cases}
        others = [old for old in result["cases"] if old["name"] not in names]
        result["cases"] = []
    for number, case in enumerate(cases, 1):
        result["busy"][case.name] = round(_machine.wait_until_quiet(args.patience), 3)
        begin = time.monotonic()
        record = _measure.case(case, contestants, seconds) | dict(commit=commit)
        result["cases"].append(record)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
        took = time.monotonic() - begin
        print(f"[{number}/{len(cases)}, {took:.0f} s]", flush=True)
        print(_report.one(record), flush=True)
    order = [case.name for case in _cases.all_cases()]
    result["cases"] = sorted(
        [*others, *result["cases"]], key=lambda record: order.index(record["name"])
    )
    out.write_text(json.dumps(result, indent=1) + "\n")
    if not args.quick and not args.update:
        result["training_step"] = _training_step.measure(seconds)
        out.write_text(json.dumps(result, indent=1) + "\n")
        for contestant in contestants:
            peak = _resident.resident_bytes(args.device, contestant.name, cases)
            for record in result["cases"]:
                if record["name"] in peak:
                    row = record["rows"].get(contestant.name, {})
                    row["resident_bytes"] = peak[record["name"]]
        out.write_text(json.dumps(result, indent=1) + "\n")
        print(_training_step.ratios(result["training_step"]))
    print(_report.everything(result))
    _report.figure(result, out.with_suffix(".png"))
    print(f"{out}, {out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
