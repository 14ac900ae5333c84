"""Training for long holds no more memory than training for a while."""

import functools
import gc
import pathlib

import jax
import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, models, objectives
from bptt_jax.types import Batch, Side

T, B, I, H = 8, 4, 3, 8
STATM = pathlib.Path("/proc/self/statm")
PAGE, MEGABYTE = 4096, 2**20


@functools.cache
def training():
    """A jitted step `(state, batch) -> state`, and the first state."""
    model = models.features((cells.elman(I, H),), 2, H)
    estimator = estimators.stream(model, objectives.squared_error)
    optimizer = optax.adam(1e-3)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, batch):
        params, opt_state, carry, key = state
        key, now = jax.random.split(key)
        _, grads, carry, *_ = estimator.grad(params, carry, batch, now)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, carry, key

    params = model.init(jax.random.key(0))
    carry = estimator.init(params, batch(0))
    return step, (params, optimizer.init(params), carry, jax.random.key(1))


def batch(i):
    rng = np.random.default_rng(i)
    draw = lambda n: rng.normal(size=(T, B, n)).astype("f")
    return Batch(draw(I), Side(mask=rng.random((T, B)) < 0.9, targets=draw(2)))


def train(steps, count):
    """Runs the steps; live arrays and bytes resident at `count` moments among them."""
    step, state = training()
    state = jax.tree.map(lambda a: a.copy(), state)  # its buffers are donated
    batches, live, resident = [batch(i) for i in range(10)], [], []
    for i in range(1, steps + 1):
        state = step(state, batches[i % 10])
        if i % (steps // count) == 0:
            jax.block_until_ready(state)
            gc.collect()
            live.append(len(jax.live_arrays()))
            if STATM.exists():
                resident.append(int(STATM.read_text().split()[1]) * PAGE)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(state[:3]))
    return live, resident


def test_live_arrays_stay_the_same():
    live, _ = train(200, 5)
    assert len(live) == 5
    assert len(set(live)) == 1


@pytest.mark.release
def test_twenty_thousand_steps():
    train(1000, 1)
    live, resident = train(20_000, 10)
    assert len(set(live)) == 1
    if not resident:
        pytest.skip("no /proc: live arrays were counted, resident memory was not")
    assert max(resident) - resident[0] <= 10 * MEGABYTE
