"""Small jobs that train in a moment, in this process or in one that can be killed.

python -m support.training OUT SEED STEPS     trains, tells each dispatch, prints a digest
python -m support.training records            prints what makes a run of each job
"""

import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import Batch, cells, estimators, models, tasks, train
from bptt_jax.train import _record
from bptt_jax.train._checkpoint import digest
from support import compiled
from support.kept_programs import ENVIRONMENT

TESTS = pathlib.Path(__file__).parents[1]
HIDDEN = 8


class Job(NamedTuple):
    task: object
    model: object
    estimator: object
    optimizer: object

    def run(self, out, options, **more) -> train.Run:
        return train.run(*self, options, out, **more)

    def state(self, seed=0) -> train.TrainState:
        import jax

        _, model, estimator, optimizer = self
        key = jax.random.key(seed)
        return train.init(model, estimator, optimizer, self.task.train, key)


@functools.cache
def text() -> Job:
    """Truncated BPTT with dropout: the carry and the keys matter."""
    letters = np.random.default_rng(0).integers(0, 5, (2, 400)).astype(np.uint8)
    table = np.arange(256, dtype=np.uint8)
    task = tasks.text(
        tasks.Corpus(*letters, table, tuple("\ufffdabcd"), {}), batch=3, T=6
    )
    model = models.symbols(5, 4, (cells.lstm(4, HIDDEN),), 5, HIDDEN, dropout=0.1)
    return Job(task, model, estimators.stream(model, task.objective), optax.adam(1e-2))


@functools.cache
def adding() -> Job:
    """The exact gradient, and batches drawn from keys."""
    task = tasks.adding(batch=3, T=6)
    model = models.features((cells.gru(2, HIDDEN),), 1, HIDDEN)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(1e-2))
    return Job(task, model, estimators.exact(model, task.objective), optimizer)


def emptied(task, at, how: str):
    """A task of `adding` whose training batches `at` have no step that counts."""
    stream = task.train

    def batch(position, key):
        made = stream.batch(position, key)
        targets, shape = made.side.targets, made.inputs.shape[:2]
        real = jnp.logical_not(jnp.isin(position, jnp.array(at)))
        if how == "weights":
            targets = targets._replace(weights=jnp.where(real, targets.weights, 0))
            return made._replace(side=made.side._replace(targets=targets))
        side = made.side._replace(mask=jnp.broadcast_to(real, shape))
        return Batch(jnp.where(real, made.inputs, jnp.nan), side)

    return task._replace(train=stream._replace(batch=batch))


JOBS = {"text, stream": text, "adding, exact": adding}
every_job = pytest.mark.parametrize(
    "job", ["text, stream", pytest.param("adding, exact", marks=pytest.mark.slow)]
)


def outcome(out: pathlib.Path, state: train.TrainState) -> tuple[str, str]:
    """What must be equal, bit for bit: the metrics' bytes and the last state."""
    metrics = (out / "metrics.jsonl").read_bytes()
    return hashlib.sha256(metrics).hexdigest(), digest(state)


def listing(folder: pathlib.Path) -> dict[str, str]:
    """Every file and folder, with the hash of what is in it."""
    return {
        path.relative_to(folder).as_posix(): ""
        if path.is_dir()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
    }


def records() -> dict[str, dict]:
    """What makes a run of each job."""
    options = train.RunOptions(updates=4)
    return {
        name: _record.made_of(*make(), options, 0, make().state())
        for name, make in JOBS.items()
    }


def start(module: str, *arguments, **options) -> subprocess.Popen:
    """`python -m module arguments`, compiled as here; its output is read as text."""
    environment = {
        **os.environ,
        **ENVIRONMENT,
        **compiled.environment(),
        "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "support.compiled", module, *map(str, arguments)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        text=True,
        env=environment,
    )


def trained(folder: pathlib.Path, seed: int, steps: int, **more) -> str:
    """What a run comes to."""
    options = train.RunOptions(
        updates=steps, per_dispatch=2, evaluate_every=6, checkpoint_every=4,
        evaluate_batches=2, keep=2,
    )  # fmt: skip
    done = text().run(folder, options, seed=seed, **more)
    return " ".join(outcome(folder, done.state))


def main(out: str, seed: str, steps: str) -> None:
    def tell(position, losses):
        print(position)

    progress = train.Progress(updates=tell, message=print)
    print(trained(pathlib.Path(out), int(seed), int(steps), progress=progress))


if __name__ == "__main__":
    if sys.argv[1:] == ["records"]:
        print(json.dumps(records()))
    else:
        main(*sys.argv[1:])
