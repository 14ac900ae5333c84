"""A sweep of a small problem, in a process of its own: `python -m support.sweeping OUT …`."""

import os
import pathlib
import sys

import jax
import jax.numpy as jnp

from bptt_jax import sweep, train
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
