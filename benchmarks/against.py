"""Gradients of this checkout against those of another one, in turns.

python -m benchmarks.against OTHER            # a folder with another checkout, say a worktree
python -m benchmarks.against OTHER --quick --saves GATES COEFFICIENTS

Each case is compiled in a process of each checkout; the two run it in turns (A B B A …),
so that what else the machine does falls on both. Of each: time of a call, of tracing and
lowering, of compiling (a fresh compilation each time), XLA's temporary memory, its count
of floating-point operations, the instructions of the compiled program, and the pages that a
call faults in (the median of some; Unix). `--saves` adds what
`save=` chooses, here alone. Writes benchmarks/results/against.json.
"""

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys

from benchmarks import _cases, _clock, _machine

RESULTS = pathlib.Path(__file__).parent / "results" / "against.json"
HERE = pathlib.Path(__file__).parents[1]
SAVES = ("STATES", "GATES", "COEFFICIENTS", "NOTHING")
SECONDS = 4.0


class Checkout:
    """A process that imports the package from a folder and runs what it is told."""

    def __init__(self, folder: pathlib.Path):
        env = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{HERE}"}
        env["JAX_ENABLE_COMPILATION_CACHE"] = "0"
        command = [
            sys.executable,
            "-c",
            # the other's package, and what this checkout asks of both
            f"import bptt_jax, sys; sys.path.insert(0, {str(HERE)!r}); "
            "from benchmarks import against; against.serve()",
        ]
        self.process = subprocess.Popen(
            command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=folder,
        )  # fmt: skip
        imported = pathlib.Path(self.ask("where"))
        if not imported.is_relative_to(folder):
            raise SystemExit(f"expected the package of {folder}, got {imported}")

    def ask(self, *words):
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(words) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise SystemExit("a checkout's process ended")
        return json.loads(line)


def serve() -> None:
    """Answers a request a line, until there are none."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    programs: dict = {}
    for line in sys.stdin:
        kind, *words = json.loads(line)
        if kind == "where":
            import bptt_jax

            answer = bptt_jax.__file__
        elif kind == "compile":
            answer, programs["call"] = _compiled(*words)
        elif kind == "faults":
            answer = _faults(programs["call"])
        else:
            answer = _clock.timed(programs["call"])
        print(json.dumps(answer), file=answers, flush=True)


def _compiled(case: list, save: str | None):
    import time

    import jax

    gradient, at = _gradient(_cases.Case(*case), save)
    begin = time.perf_counter()
    lowered = jax.jit(gradient).lower(*at)
    traced = time.perf_counter()
    program = lowered.compile()
    done = time.perf_counter()
    memory, cost = program.memory_analysis(), program.cost_analysis()
    found = dict(
        trace_s=traced - begin,
        compile_s=done - traced,
        temp=memory.temp_size_in_bytes,
        flops=cost["flops"],
        instructions=sum(" = " in line for line in program.as_text().splitlines()),
    )
    jax.clear_caches()
    return found, lambda: jax.block_until_ready(program(*at))


def _faults(call) -> float:
    import resource
    import statistics

    counts = []
    for _ in range(6):
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        call()
    return statistics.median(b - a for a, b in itertools.pairwise(counts))


def _gradient(case: _cases.Case, save: str | None):
    import jax
    import jax.numpy as jnp

    from bptt_jax import cells, layers, unrolls

    make = getattr(cells, case.cell)
    options = {} if save is None else dict(save=getattr(layers, save))
    parts = [layers.recurrent(make(n, case.H), **options) for n in case.sizes]
    model = layers.stack(*parts) if case.depth > 1 else parts[0]
    params = [jax.tree.map(jnp.asarray, layer) for layer in _cases.weights(case)]
    params = tuple(params) if case.depth > 1 else params[0]

    def loss(params, xs):
        carry = model.init_carry(params, (case.B,))
        return (unrolls.bptt(model, params, carry, xs)[1] ** 2).sum()

    return jax.value_and_grad(loss, (0, 1)), (params, jnp.asarray(_cases.inputs(case)))


def compare(sides: dict, case: _cases.Case, seconds: float) -> dict:
    """`sides`: name -> (checkout, save); the first is what the others are divided by."""
    rows = {}
    for name, (checkout, save) in sides.items():
        rows[name] = checkout.ask("compile", case, save)
    calls = {n: lambda c=c: c.ask("run") for n, (c, _) in sides.items()}
    for call in calls.values():
        call()
    once = sum(call() for call in calls.values()) / 1e3
    times = {name: [] for name in calls}
    for _ in range(max(4, min(30, round(seconds / (2 * once))))):
        for name in [*calls, *reversed(calls)]:
            times[name].append(calls[name]())
    for name, (checkout, _) in sides.items():
        rows[name] |= _clock.summary(times[name]) | dict(faults=checkout.ask("faults"))
    return rows


def ratios(rows: dict, name: str, to: str) -> dict:
    return {
        key: round(rows[name][key] / rows[to][key], 3)
        for key in rows[name]
        if key != "calls" and rows[to].get(key)
    }


def main() -> None:
    as_written = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("other", type=pathlib.Path, help="a folder with a checkout")
    parser.add_argument("--quick", action="store_true", help="two shapes")
    parser.add_argument("--saves", nargs="*", default=[], choices=SAVES)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each case")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    given = parser.parse_args()
    other = given.other.resolve()
    if not (other / "bptt_jax").is_dir():
        raise SystemExit(f"other: expected a folder with bptt_jax in it, got {other}")
    sides = {"other": (Checkout(other), None), "here": (Checkout(HERE), None)}
    sides |= {save: (Checkout(HERE), save) for save in given.saves}
    about = _machine.describe("cpu")
    result = about | dict(other=_machine.commit(other), cases={})
    for case in _cases.all_cases(_cases.QUICK if given.quick else _cases.SHAPES):
        rows = compare(sides, case, given.seconds)
        shown = {name: ratios(rows, name, "other") for name in sides if name != "other"}
        result["cases"][case.name] = dict(rows=rows, ratios=shown)
        for name, found in shown.items():
            print(f"{case.name:32} {name:13}", found, flush=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
