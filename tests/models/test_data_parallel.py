"""`estimators.data_parallel`: the gradient of a batch that is spread over devices."""

import os
import subprocess
import sys
import textwrap

import jax
import pytest

from bptt_jax import cells, estimators, models, objectives, tasks
from support import compiled

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
from support import compiled
from bptt_jax import Batch, Side, Weighted, cells, estimators, models, objectives
from bptt_jax.types import Estimator, Gradient

model = models.features((cells.lstm(3, 4, param_dtype=jnp.float64),), 2, 4)
params = jax.tree.map(lambda a: a.astype(jnp.float64), model.init(jax.random.key(0)))
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
xs, ts = (jax.random.normal(jax.random.key(i), (7, 6, n)) for i, n in ((1, 3), (2, 2)))
some = jax.random.bernoulli(jax.random.key(3), 0.6, (7, 6))
half = some.at[:, 3:].set(False)  # nothing of the second device's examples is real
weights = jax.random.uniform(jax.random.key(4), (7, 6))
sides = [
    Side(targets=ts), Side(targets=ts, mask=some), Side(targets=ts, mask=half),
    Side(targets=Weighted(ts, weights)), Side(targets=Weighted(ts, weights[:, 0])),
    Side(targets=ts, resets=some),
    Side(targets=Weighted(ts, weights.at[:, 3:].set(0))),
    Side(targets=Weighted(ts, weights - 0.8)),  # a part's sum may be negative
]
nothing = [
    Side(targets=ts, mask=jnp.zeros((7, 6), bool)),
    Side(targets=Weighted(ts, 0 * weights)),
]
told = lambda ys, targets: {"MAE": abs(ys - targets).mean(-1)}
for make in (estimators.exact, estimators.stream):
    one = make(model, objectives.squared_error, aux=told)
    two = estimators.data_parallel(one, mesh)
    for side in sides:
        batch, key = Batch(xs, side), jax.random.key(5)
        state = one.init(params, batch)
        a = jax.jit(one.grad)(params, state, batch, key)
        b = jax.jit(two.grad)(params, state, batch, key)
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(a[1])) > 1e-3
        for x, y in zip(jax.tree.leaves(a[:3]), jax.tree.leaves(b[:3]), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(a.steps, b.steps, rtol=1e-6)
        np.testing.assert_allclose(a.metrics["MAE"], b.metrics["MAE"], rtol=1e-11)
    for side in nothing:
        found = jax.jit(two.grad)(params, state, Batch(xs, side), key)
        assert not any(a.any() for a in jax.tree.leaves(found[:2]))
        assert float(found.steps) == 0
    sums = jax.jit(two.grad).lower(params, state, batch, key).compile().as_text()
    assert "all-reduce" in sums

def drawn(params, state, batch, key):
    noise = jax.random.uniform(key, state.shape)
    return Gradient(jnp.zeros(()), params, noise, jnp.ones(()), {})

noisy = estimators.data_parallel(Estimator(lambda *_: jnp.zeros(6), drawn), mesh)
noise = jax.jit(noisy.grad)(params, jnp.zeros(6), batch, key).state
assert len(np.unique(noise)) == 6  # each device draws its own
print("equal")
"""


def test_two_devices_give_the_gradient_of_one():
    environment = {
        **os.environ,
        **compiled.environment(),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.stdout == "equal\n", done.stderr[-3000:]


def test_examples_that_devices_do_not_divide_are_refused():
    mesh = jax.sharding.AbstractMesh((3,), ("data",))
    task = tasks.adding(batch=4, T=6)
    model = models.features((cells.gru(2, 4),), 1, 4)
    one = estimators.exact(model, objectives.squared_error)
    params = model.init(jax.random.key(0))
    batch = task.train.batch(0, jax.random.key(0))
    with pytest.raises(ValueError, match="a multiple of the mesh's 3 devices, got 4"):
        estimators.data_parallel(one, mesh).grad(params, (), batch, jax.random.key(0))
