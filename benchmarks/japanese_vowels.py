"""Who speaks? The notebook's program for one seed, beside the usual one in PyTorch.

pip install --no-deps aeon
python -m benchmarks.japanese_vowels            # writes results/japanese_vowels.json
python -m benchmarks.japanese_vowels --quick    # few steps, without --out writes nothing

Contestants are programs, each in a process of its own, in turns (A B C C B A …): from the start
of Python and the imports to how many of the 370 test utterances are right. What is compiled is
compiled anew each time, and its time is counted, and shown apart. Ours are those of
notebooks/your_own_data.py (243 of the 270 training utterances, noise on the inputs, dropout,
weight decay), an LSTM in PyTorch is trained on the 270 without any of it.
Round i has seed i.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks import _machine

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "japanese_vowels.json"
ROUNDS, UNITS, BATCH = 3, 100, 27
STEPS, EPOCHS = 360, 70
PROGRAMS = ("one direction", "both directions", "torch, both directions")


def files() -> pathlib.Path | None:
    """The folder with the data; None: aeon is not installed."""
    aeon = importlib.util.find_spec("aeon")
    if aeon is None or not aeon.submodule_search_locations:
        return None
    return (
        pathlib.Path(aeon.submodule_search_locations[0])
        / "datasets" / "data" / "JapaneseVowels"
    )  # fmt: skip


# Ours


class Compiling:
    """Seconds in which JAX traced, lowered or compiled, whichever was within another."""

    def __init__(self):
        import jax

        self.spans: list[tuple[float, float]] = []
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, seconds: float, **more):
        if event.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            self.spans.append((now - seconds, now))

    def seconds(self) -> float:
        total, until = 0.0, -np.inf
        for begin, end in sorted(self.spans):
            total += max(0.0, end - max(begin, until))
            until = max(until, end)
        return total


def ours(name: str, seed: int, quick: bool) -> dict:
    import jax
    import jax.numpy as jnp
    import optax

    from bptt_jax import (
        cells,
        data,
        estimators,
        layers,
        models,
        progress,
        sweep,
        tasks,
        wholes,
    )

    compiling, folder = Compiling(), files()
    assert folder is not None
    known = data.read(folder / "JapaneseVowels_TRAIN.ts")
    unknown = data.read(folder / "JapaneseVowels_TEST.ts")
    held_out = np.arange(len(known.inputs)) % 10 == 9
    task = tasks.arrays(known.inputs, known.targets, batch=BATCH, held_out=held_out)

    def noisy(item, key):
        batch = task.train.batch(item, key)
        noise = jax.random.normal(key, jnp.shape(batch.inputs))
        return batch._replace(inputs=batch.inputs + 0.8 * noise)

    cell, steps = cells.gru(task.n_in, UNITS), 4 if quick else STEPS
    model = {
        "one direction": lambda: models.features(cell, task.n_out, UNITS, dropout=0.5),
        "both directions": lambda: models.sections(
            wholes.ends(cell), layers.dropout(0.5), layers.dense(2 * UNITS, task.n_out)
        ),
    }[name]()
    falling = optax.cosine_decay_schedule(1.0, steps)
    training = sweep.training(
        task._replace(train=task.train._replace(batch=noisy, buckets=())),
        model,
        estimators.exact(model, task.objective),
        lambda lr: optax.adamw(lambda step: lr * falling(step), weight_decay=1e-2),
    )
    result = sweep.run(
        training,
        sweep.grid(lr=[3e-3], seed=[seed]),
        steps=steps,
        mesh=jax.sharding.Mesh(jax.devices()[:1], ("seeds",)),
        lanes=1,
        keep=1,
        out=pathlib.Path(tempfile.mkdtemp()) / "seed",
        progress=progress.silent,
    )
    run = result.best[0].load(model=model, task=task)
    found = run.evaluate(unknown.inputs, unknown.targets)
    return dict(accuracy=found["accuracy"], compiling=compiling.seconds())


# PyTorch


def torchs(seed: int, quick: bool) -> dict:
    import torch
    from torch.nn.utils import rnn

    folder = files()
    assert folder is not None
    parts = (_read(folder / f"JapaneseVowels_{name}.ts") for name in ("TRAIN", "TEST"))
    (known, labels), (unknown, right) = (
        ([torch.tensor(x) for x in xs], torch.tensor(ys)) for xs, ys in parts
    )
    torch.manual_seed(seed)
    lstm = torch.nn.LSTM(12, UNITS, bidirectional=True)
    readout = torch.nn.Linear(2 * UNITS, 9)

    def logits(xs):
        _, (h, _) = lstm(rnn.pack_sequence(xs, enforce_sorted=False))
        return readout(h.movedim(0, 1).flatten(1))

    adam = torch.optim.Adam([*lstm.parameters(), *readout.parameters()], lr=1e-3)
    for _ in range(1 if quick else EPOCHS):
        for rows in torch.randperm(len(known)).split(BATCH):
            loss = torch.nn.functional.cross_entropy(
                logits([known[i] for i in rows]), labels[rows]
            )
            adam.zero_grad()
            loss.backward()
            adam.step()
    with torch.no_grad():
        said = logits(unknown).argmax(-1)
    return dict(accuracy=(said == right).double().mean().item(), compiling=0.0)


def _read(path: pathlib.Path) -> tuple[list[np.ndarray], list[int]]:
    """Sequences float32 `[T, 12]` and speakers from 0 on, without this package."""
    _, _, lines = path.read_text().partition("@data\n")
    xs, ys = [], []
    for line in lines.splitlines():
        *dimensions, label = line.split(":")
        each = [np.array(d.split(","), np.float32) for d in dimensions]
        xs.append(np.stack(each, 1))
        ys.append(int(label) - 1)
    return xs, ys


# In turns


def role():
    """What a process does that `timed` has started."""
    name, seed, quick = json.loads(sys.argv[1])
    of_torch = name.startswith("torch")
    found = torchs(seed, quick) if of_torch else ours(name, seed, quick)
    print(json.dumps(found))


def timed(name: str, seed: int, quick: bool) -> dict:
    """A program in a process of its own, with no program kept from another one."""
    with tempfile.TemporaryDirectory() as nothing:
        plain = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", "from benchmarks.japanese_vowels import role; role()",
             json.dumps((name, seed, quick))],
            env=plain | dict(JAX_PLATFORMS="cpu", XDG_CACHE_HOME=nothing),
            cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began
    return json.loads(done.stdout.splitlines()[-1]) | dict(seconds=seconds)


def summary(runs: list[dict]) -> dict:
    """Runs are in the order of their seeds."""
    both = lambda values: dict(
        min=round(min(values), 2), median=round(statistics.median(values), 2)
    )
    return dict(
        seconds=both([run["seconds"] for run in runs]),
        compiling=both([run["compiling"] for run in runs]),
        accuracy=[round(run["accuracy"], 4) for run in runs],
    )


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.japanese_vowels")
    parser.add_argument("--quick", action="store_true", help="few steps")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="runs of each")
    parser.add_argument(
        "--patience", type=float, default=120, help="for a quiet machine"
    )
    parser.add_argument("--out", type=pathlib.Path, help="the JSON that is written")
    args = parser.parse_args()
    if args.rounds < 1:
        raise SystemExit(f"--rounds: expected at least 1, got {args.rounds}")
    if files() is None:
        raise SystemExit("the data come with aeon: pip install --no-deps aeon")
    if importlib.util.find_spec("torch") is None:
        raise SystemExit("PyTorch is not here: pip install torch")
    out = args.out or (None if args.quick else RESULTS)
    busy = round(_machine.wait_until_quiet(args.patience), 3)
    runs: dict[str, list] = {name: [] for name in PROGRAMS}
    for seed in range(args.rounds):
        for name in (PROGRAMS, reversed(PROGRAMS))[seed % 2]:
            runs[name].append(timed(name, seed, args.quick))
            print(f"{name}, seed {seed}: {runs[name][-1]}", flush=True)
    cases = {name: summary(of) for name, of in runs.items()}
    result = _machine.describe("cpu") | dict(
        busy=busy, rounds=args.rounds, steps=STEPS, epochs=EPOCHS, cases=cases
    )
    if out:
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
