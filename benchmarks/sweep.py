"""A sweep against its configurations one by one, and against PyTorch.

python -m benchmarks.sweep            # writes benchmarks/results/sweep.json
python -m benchmarks.sweep --only 64  # one of the cases again
python -m benchmarks.sweep --quick    # few, writes nothing

An LSTM on the adding problem (8 sequences of 100 steps), Adam, 16 learning rates with so
many seeds each. Seconds of

- alone: one configuration by itself, compiled before, with the same evaluations: the least
  of five; times the number of configurations;
- command: `bptt-jax sweep` from start to end, compilation and measurements included, once
  with a cold cache of layouts and once more;
- process: `sweep.run` in a process with one device, from its call to its end;
- torch: the same training in PyTorch by a loop in Python, 100 of its steps, at the number
  of threads that is fastest.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks import _machine

RESULTS = pathlib.Path(__file__).parent / "results" / "sweep.json"
BATCH, T, STEPS, EVALUATIONS, HELD_OUT = 8, 100, 400, 10, 10
CASES = {16: 512, 32: 256, 64: 128}
QUICK = {16: 16}
RATES = "1e-4:1e-1:log:16"


def job(H: int):
    from bptt_jax import cells, estimators, models, tasks

    task = tasks.adding(batch=BATCH, T=T)
    model = models.features((cells.lstm(2, H),), 1, H)
    return task, model, estimators.exact(model, task.objective)


def optimizer(lr):
    import optax

    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(lr))


def alone(H: int, n: int) -> dict:
    """Seconds of one configuration, trained and evaluated as in a sweep."""
    del n
    import jax

    from bptt_jax import train

    task, model, estimator = job(H)
    made = optimizer(1e-3)
    advance = train.many_steps(estimator, made, task.train.batch)
    losses = train.evaluator(model, task.objective, task.held_out.batch, task.stateful)
    held_out, every = task.held_out.read(0, HELD_OUT), STEPS // EVALUATIONS

    def once() -> float:
        state = train.init(model, estimator, made, task.train, jax.random.key(0))
        began = time.perf_counter()
        for at in range(0, STEPS, every):
            state, _ = advance(state, task.train.read(at, every))
            sums = losses(state.params, None, held_out)
            jax.block_until_ready(sums)
        return time.perf_counter() - began

    once()
    return dict(seconds=min(once() for _ in range(5)))


def process(H: int, n: int) -> dict:
    """Seconds of a sweep in this process, which has one device."""
    import numpy as np

    from bptt_jax import sweep

    space = sweep.grid(lr=list(np.geomspace(1e-4, 1e-1, 16)), seed=range(n // 16))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        found = sweep.run(
            sweep.training(*job(H), optimizer, held_out_batches=HELD_OUT),
            space, steps=STEPS, evaluate_every=STEPS // EVALUATIONS, out=folder,
        )  # fmt: skip
        return dict(seconds=time.perf_counter() - began, layout=found.layouts)


def torch(H: int, n: int) -> dict:
    """Seconds of one training, from 100 of its steps."""
    del n
    import torch as pt

    class Net(pt.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = pt.nn.LSTM(2, H), pt.nn.Linear(H, 1)

        def forward(self, xs):
            return self.out(self.lstm(xs)[0][-1])

    def steps(n: int) -> float:
        net = Net()
        adam = pt.optim.Adam(net.parameters(), 1e-3)
        began = time.perf_counter()
        for _ in range(n):
            values, markers = pt.rand(T, BATCH), pt.zeros(T, BATCH)
            markers[pt.randint(0, T // 2, (BATCH,)), pt.arange(BATCH)] = 1
            markers[pt.randint(T // 2, T, (BATCH,)), pt.arange(BATCH)] = 1
            targets = (values * markers).sum(0)[:, None]
            loss = ((net(pt.stack([values, markers], -1)) - targets) ** 2).mean()
            adam.zero_grad()
            loss.backward()
            pt.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            adam.step()
        return time.perf_counter() - began

    found = {}
    for threads in {1, os.cpu_count() or 1}:
        pt.set_num_threads(threads)
        steps(10)
        found[threads] = min(steps(100) for _ in range(3)) * STEPS / 100
    threads = min(found, key=lambda t: found[t])
    return dict(seconds=found[threads], threads=threads)


def words(H: int, n: int, steps: int = STEPS) -> list[str]:
    """Of the command line: a sweep of so many configurations."""
    return [
        "sweep", "--task", "adding", "--cell", "lstm", "--hidden", f"{H}",
        "--batch", f"{BATCH}", "--steps", f"{steps}", "--length", f"{T}",
        "--lr", RATES, "--seed", f"0:{n // 16}",
    ]  # fmt: skip


def command(H: int, n: int, cache: str) -> dict:
    """Seconds of the command, from start to end."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "s"
        run = [sys.executable, "-m", "bptt_jax", *words(H, n), "--out", f"{out}"]
        began = time.perf_counter()
        done = subprocess.run(
            run,
            env=os.environ | {"XDG_CACHE_HOME": cache},
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - began
        assert done.returncode == 0, done.stderr
        layout = json.loads((out / "sweep.json").read_text())["layouts_shown"]
    return dict(seconds=seconds, layout=layout)


def in_process(role: str, H: int, n: int, cache: str) -> dict:
    """A role in a process of its own, which nothing has been compiled in."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sweep", "--role", role, str(H), str(n)],
        env=os.environ | {"XDG_CACHE_HOME": cache}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


ROLES = dict(alone=alone, process=process, torch=torch)


def case(H: int, n: int) -> dict:
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as other:
        before = in_process("alone", H, n, cache)
        cold, warm = command(H, n, cache), command(H, n, cache)
        inside = in_process("process", H, n, other)
        after = in_process("alone", H, n, cache)
        by_torch = in_process("torch", H, n, cache)
    one = min(before["seconds"], after["seconds"])
    return dict(
        H=H, configs=n, alone_seconds=[before["seconds"], after["seconds"]],
        command_cold=cold, command_warm=warm, process=inside, torch=by_torch,
        command_to_alone=round(cold["seconds"] / (n * one), 3),
        command_again_to_alone=round(warm["seconds"] / (n * one), 3),
        process_to_alone=round(inside["seconds"] / (n * one), 3),
        command_to_torch=round(cold["seconds"] / (n * by_torch["seconds"]), 3),
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep")
    parser.add_argument("--quick", action="store_true", help="16 configurations")
    parser.add_argument(
        "--only", type=int, choices=CASES, help="hidden units of one case"
    )
    parser.add_argument("--role", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        role, H, n = args.role
        return print(json.dumps(ROLES[role](int(H), int(n))))
    chosen = {args.only: CASES[args.only]} if args.only else CASES
    for H, n in (QUICK if args.quick else chosen).items():
        row = case(H, n)
        print(
            f"H {H}, {n} configurations: command {row['command_to_alone']:.2f} of one by "
            f"one (again {row['command_again_to_alone']:.2f}), in a process with one "
            f"device {row['process_to_alone']:.2f}, {row['command_to_torch']:.2f} of "
            f"PyTorch's; {row['command_cold']['layout'][0]}",
            flush=True,
        )
        if not args.quick:
            _keep(row)


def _keep(row: dict) -> None:
    """In place of an earlier row of the same width; each says what it was taken on."""
    machine = _machine.describe("cpu")
    earlier = json.loads(RESULTS.read_text()) if RESULTS.exists() else dict(cases=[])
    others = [
        dict(commit=earlier["commit"]) | r
        for r in earlier["cases"]
        if r["H"] != row["H"]
    ]
    cases = sorted(
        [*others, row | dict(commit=machine["commit"])], key=lambda r: r["H"]
    )
    what = dict(batch=BATCH, T=T, steps=STEPS, cases=cases)
    RESULTS.write_text(json.dumps(machine | what, indent=1) + "\n")


if __name__ == "__main__":
    main()
