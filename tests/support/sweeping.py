"""A sweep of a small problem, in a process of its own: `python -m support.sweeping OUT …`."""

import os
import pathlib
import sys

import jax
import jax.numpy as jnp

from bptt_jax import sweep, train
from bptt_jax.sweep._training import as_training, positions
from support import compiled  # noqa: F401  (how programs are compiled)


def descent(config, key):
    """Minimises (x - 3)² + noise by gradient descent; diverges where lr > 1."""
    state = jnp.stack([jax.random.normal(key), jnp.float32(0)])

    def step(state):
        x, t = state
        noise = jax.random.normal(jax.random.fold_in(key, t.astype(jnp.int32)))
        loss = (x - 3) ** 2
        x = x - config["lr"] * (2 * (x - 3) + 0.1 * noise)
        return jnp.stack([x, t + 1]), dict(loss=loss, x=x)

    return state, step


def told_of(folder, act=None) -> sweep.Training:
    """`descent`, of whose steps a file says who made them; `act(first step)` before each
    call of the program, on the host.
    """
    plain = as_training(descent)

    def read(first, n):
        with (folder / "steps").open("a") as file:
            file.write(f"{os.getpid()} {first} {n}\n")
        if act is not None:
            act(first)
        return positions(first, n)

    return plain._replace(read=read)


def steps_made(folder) -> list[list[int]]:
    """`[process, first, n]` of each call."""
    text = (folder / "steps").read_text()
    return [[int(word) for word in line.split()] for line in text.splitlines()]


def at_fault(rate: float, act) -> sweep.Training:
    """`descent`; on the host `act()` where a configuration of this rate is evaluated."""
    plain = as_training(descent)

    def evaluate(config, state, held_out):
        return dict(rate=config["lr"])

    def figures(found):
        if abs(found["rate"] - rate) < 1e-6:
            act()
        return {}

    return plain._replace(evaluate=evaluate, figures=figures)


SPACE = sweep.grid(lr=[0.3, 0.1, 0.01, 3.0, 0.001], seed=range(3))


def go(out: pathlib.Path, die_after: int = 0, **options) -> sweep.Result:
    """`die_after`: units of work after which the process kills itself; 0: never."""
    units = 0

    def advanced(status):
        nonlocal units
        units += 1
        if units == die_after:
            os.kill(os.getpid(), 9)

    defaults = dict(steps=120, evaluate_every=20, lanes=2, checkpoint_seconds=0.0)
    progress = train.Progress(advanced=advanced)
    return sweep.run(descent, SPACE, out=out, progress=progress, **(defaults | options))


if __name__ == "__main__":
    folder, devices, die_after, eta = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", int(devices))
    how = sweep.halving(int(eta)) if int(eta) else None
    go(pathlib.Path(folder), int(die_after), halving=how)
