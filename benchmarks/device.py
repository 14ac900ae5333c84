"""One NVIDIA GPU: is it right there, how fast is it, what memory does it take?

python -m benchmarks.device                 # at most 8 minutes; writes results/device.json
python -m benchmarks.device --only bodies   # the races whose names hold a word
python -m benchmarks.device --dry-run       # all of it, small, on the CPU; keeps nothing

Runs races in an order by worth, as many as the seconds allow: agreement of the cells by
each loop with a scan, in float32 and bfloat16; times of this project (as it is: unrolled;
rolled; as one CUDA graph), a scan, flax, PyTorch's and JAX's cuDNN at eight shapes; lengths
of stretches and of bodies; 512 small LSTMs in one program; what is kept; states offloaded to
the host; bfloat16; peak memory. They run in a process of their own, which is stopped where it
hangs. What a library lacks, and what fails, is written down in words, and the rest goes on. The
JSON and a page with its tables (.md) are written whenever something has come of it, so a run
that is cut is worth what it has. It needs nothing from the network. Without a GPU it says so and
ends with status 2.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
import tempfile
import time

from benchmarks import _apart, _device_report, _machine
from benchmarks._race import TIMING, Race

RESULTS = pathlib.Path(__file__).parent / "results"
SECONDS = 480.0
PATIENCE = 90.0  # seconds in which something must come of a race


def about(device: str) -> dict:
    """What the process with the device tells of it; `error` where there is none."""
    import jax

    try:
        first = jax.devices()[0]
    except RuntimeError as error:
        return dict(error=" ".join(str(error).split()))
    if device == "gpu" and first.platform not in ("gpu", "cuda", "rocm"):
        return dict(error=f"JAX has {first.platform} alone")
    stats = first.memory_stats() or {}
    return _machine.describe(device) | dict(
        platform=first.platform,
        runtime=" ".join(first.client.platform_version.split()),
        memory_bytes=stats.get("bytes_limit"),
    )


def run(
    races: list[Race],
    process: _apart.Process,
    result: dict,
    out: pathlib.Path,
    *,
    seconds: float,
    patience: float = PATIENCE,
    show=print,
) -> dict:
    """Runs what the seconds allow, at least one race, and writes it as it comes.

    Args:
      races: in order.
      process: that runs them.
      result: what is known before; the records go to its `races`, the names of those for
        which there was no time to `left_out`.
      out: the JSON; the page beside it.
      seconds: of all, from here on.
      patience: seconds in which something must come of a race.
      show: is called with a line a race.
    """
    result |= dict(races=[], left_out=[race.name for race in races])
    end = time.monotonic() + seconds
    for race in races:
        first = not result["races"]
        if not first and time.monotonic() >= end:
            break
        record = dict(
            name=race.name, kind=race.kind, reference=race.reference, **race.about,
            rows={}, failed={}, declined={}, cut=None,
        )  # fmt: skip
        result["races"].append(record)
        result["left_out"].remove(race.name)
        begin = time.monotonic()
        # The first one may take its time, or a run of no seconds would have nothing.
        until = max(end, begin + patience * (1 + len(race.ways))) if first else end
        _one(race, process, record, until, patience, lambda: write(result, out))
        record["seconds"] = round(time.monotonic() - begin, 1)
        write(result, out)
        show(_device_report.line(record))
    process.stop()
    return result


def _one(race, process, record, until, patience, keep) -> None:
    """One race, again without a way that ended the process, until it is done."""
    while True:
        at = None
        try:
            for event in process.events(race, list(record["failed"]), until, patience):
                if event["event"] == "begins":
                    at = event["way"]
                else:
                    _note(record, event)
                    keep()
            return
        except _apart.Gone as why:
            if time.monotonic() >= until:
                record["cut"] = f"the time was up at {at or 'the start'}"
                return
            record["failed"][at or "the process"] = str(why)
            keep()
            if at in (None, TIMING):
                return


def _note(record: dict, event: dict) -> None:
    kind, way = event["event"], event.get("way")
    if kind == "times":
        for name, times in event["rows"].items():
            record["rows"][name]["gradient_ms"] = times
    elif kind == "row":
        record["rows"][way] = event["row"]
    else:
        record[kind][way] = event["why"]


def write(result: dict, out: pathlib.Path) -> None:
    """The JSON and its page; whole at every moment."""
    text = json.dumps(result, indent=1) + "\n"
    page = _device_report.page(json.loads(text))
    for path, content in ((out, text), (out.with_suffix(".md"), page)):
        part = path.with_name(path.name + ".part")
        part.write_text(content, encoding="utf-8")
        part.replace(path)


def parse():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.device", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="words of names of races"
    )
    parser.add_argument("--dry-run", action="store_true", help="small, on the CPU")
    parser.add_argument("--out", type=pathlib.Path, help="the JSON that is written")
    args = parser.parse_args()
    if not args.seconds >= 0:
        parser.error(f"--seconds: expected a number of at least 0, got {args.seconds}")
    return args


def main() -> int:
    began, args = time.monotonic(), parse()
    folder = pathlib.Path(tempfile.mkdtemp()) if args.dry_run else RESULTS
    out = args.out or folder / "device.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    device = "cpu" if args.dry_run else "gpu"
    if args.dry_run:
        os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # compiling is measured
    # PyTorch shares the device, and what is in use is asked for
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

    from benchmarks import _device_races

    make = functools.partial(_device_races.races, args.dry_run)
    races = [race for race in make() if any(word in race.name for word in args.only)]
    if not races:
        raise SystemExit(f"--only: expected words of names of races, got {args.only}")
    process = _apart.Process(make, functools.partial(about, device))
    try:
        found = process.start()
    except _apart.Gone as why:
        found = dict(error=str(why))
    if "error" in found:
        print(
            f"no NVIDIA GPU ({found['error']}); --dry-run runs all of this on the "
            "CPU, small, to see that it works",
            file=sys.stderr,
        )
        return 2
    result = found | dict(dry_run=args.dry_run, seconds=args.seconds)
    left = args.seconds - (time.monotonic() - began)
    show = functools.partial(print, flush=True)
    patience = 10 * PATIENCE if args.dry_run else PATIENCE  # a CPU may have others
    run(races, process, result, out, seconds=left, patience=patience, show=show)
    print(_device_report.page(result))
    print(out, out.with_suffix(".md"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
