"""`estimators.data_parallel`: the gradient of a batch that is spread over devices."""

import jax
import pytest

from bptt_jax import cells, estimators, models, objectives, tasks
from support import apart

GRADIENT = """
import jax, jax.numpy as jnp, numpy as np
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
# a stream has a state besides: where steps are masked, reset or weighted
each = (estimators.exact, sides), (estimators.stream, [sides[2], *sides[5:]])
for make, some_sides in each:
    one = make(model, objectives.squared_error, aux=told)
    two = estimators.data_parallel(one, mesh)
    for side in some_sides:
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


CONTEXT = """
import jax, jax.numpy as jnp, numpy as np
from support import compiled
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from bptt_jax import Batch, InContext, Side, cells, estimators, objectives, unrolls

def step(params, h, x):
    w, weights = params
    h = jnp.tanh(jnp.einsum("bi,io->bo", x, w) + jnp.einsum("bi,bio->bo", h, weights))
    return h, h

def init(key):
    return InContext(jax.random.normal(key, (3, 4)))

cell = cells.from_step(step, init, lambda p, batch: jnp.zeros((*batch, 4)))
params = cell.init(jax.random.key(0))
xs, ts = (jax.random.normal(jax.random.key(i), (7, 6, n)) for i, n in ((1, 3), (2, 4)))
weights = jax.random.normal(jax.random.key(3), (6, 4, 4))

mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
one = estimators.exact(cell, objectives.squared_error)
two = estimators.data_parallel(one, mesh)
at = params, (), Batch(xs, Side(targets=ts), weights), jax.random.key(5)
a, b = jax.jit(one.grad)(*at), jax.jit(two.grad)(*at)
for x, y in zip(jax.tree.leaves(a[:2]), jax.tree.leaves(b[:2]), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-13)

def loss(params, carry, xs, weights):
    _, ys = unrolls.bptt(cell, params, carry, xs, chunk=3, context=weights)
    return (ys * ys).sum()

carry = jnp.zeros((6, 4))
want = jax.jit(jax.grad(loss, (0, 2, 3)))(params, carry, xs, weights)
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
    put = lambda a, *axes: jax.device_put(a, NamedSharding(mesh, PartitionSpec(*axes)))
    with jax.set_mesh(mesh):
        spread = put(params), put(carry, "data"), put(xs, None, "data"), put(weights, "data")
        found = jax.jit(jax.grad(loss, (0, 2, 3)))(*spread)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-13)
    assert found[2].sharding.spec[:1] == ("data",), (kind, found[2].sharding)
print("right")
"""


@pytest.fixture(scope="module")
def ended():
    """What becomes of the programs on two devices, in float64."""
    programs = {"gradient": ["-c", GRADIENT], "context": ["-c", CONTEXT]}
    return apart.run(programs, JAX_NUM_CPU_DEVICES="2", JAX_ENABLE_X64="true")


def test_two_devices_give_the_gradient_of_one(ended):
    assert ended["gradient"].stdout == "equal\n", ended["gradient"].stderr


def test_a_context_is_spread_as_the_batch_is(ended):
    assert ended["context"].stdout == "right\n", ended["context"].stderr


def test_examples_that_devices_do_not_divide_are_refused():
    mesh = jax.sharding.AbstractMesh((3,), ("data",))
    task = tasks.adding(batch=4, T=6)
    model = models.features((cells.gru(2, 4),), 1, 4)
    one = estimators.exact(model, objectives.squared_error)
    params = model.init(jax.random.key(0))
    batch = task.train.batch(0, jax.random.key(0))
    with pytest.raises(ValueError, match="a multiple of the mesh's 3 devices, got 4"):
        estimators.data_parallel(one, mesh).grad(params, (), batch, jax.random.key(0))
