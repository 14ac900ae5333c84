"""One step: pure, jittable, and many trainings as one under `vmap`."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import (
    Batch,
    Estimator,
    Gradient,
    Side,
    cells,
    estimators,
    models,
    tasks,
    train,
)
from bptt_jax._jax import enable_x64
from support.training import JOBS, adding, emptied, every_job, text

N = 2


def step_of(job):
    batch = job.task.train.batch
    return functools.partial(train.step, job.estimator, job.optimizer, batch)


@functools.cache
def jitted(job):
    return jax.jit(step_of(JOBS[job]()))


def items(job, n=N):
    read = job.task.train.read(0, n)
    return [jax.tree.map(lambda a, i=i: jnp.asarray(a[i]), read) for i in range(n)]


def as_numpy(a) -> np.ndarray:
    is_key = jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(a) if is_key else a)


def equal(a, b) -> bool:
    same = jax.tree.map(lambda x, y: np.array_equal(*map(as_numpy, (x, y))), a, b)
    return all(jax.tree.leaves(same))


def close(a, b, rtol=2e-5):
    """To the rounding of sums in another order."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6)


def test_a_state_is_given_away_and_items_are_not():
    job = adding()
    advance = train.many_steps(job.estimator, job.optimizer, job.task.train.batch)
    lowered = advance.lower(jax.eval_shape(job.state), job.task.train.read(0, 2))
    state, of_items = lowered.args_info[0]
    assert {a.donated for a in jax.tree.leaves(state)} == {True}
    assert {a.donated for a in jax.tree.leaves(of_items)} == {False}


@pytest.mark.parametrize("stateful", [False, True])
def test_an_evaluation_goes_on_where_the_task_is_stateful(stateful):
    """One batch twice has twice its losses if it begins anew, and others if it goes on."""
    job = text()
    held_out = job.task.held_out
    params = jax.tree.map(
        lambda a: jnp.sin(jnp.arange(a.size)).reshape(a.shape), job.state().params
    )
    evaluate = train.evaluator(job.model, job.task.objective, held_out.batch, stateful)
    once = held_out.read(1, 1)  # the first begins anew by itself
    twice = jax.tree.map(lambda a: np.concatenate([a, a]), once)
    one, two = (evaluate(params, None, items) for items in (once, twice))
    assert float(two.steps) == 2 * float(one.steps)
    again = np.isclose(float(two.losses), 2 * float(one.losses), rtol=1e-6)
    assert again == (not stateful)


@every_job
def test_pure(job):
    step, job = jitted(job), JOBS[job]()
    state, (first, second, *_) = job.state(), items(job)
    before = jax.tree.map(jnp.copy, state)
    after, metrics = step(state, first)
    again, same = step(state, first)
    assert equal(state, before)
    assert equal((after, metrics), (again, same))
    assert not equal(after.params, state.params)
    assert not equal(after.params, step(after, second)[0].params)
    assert (int(after.position), int(after.bad)) == (1, -1)
    assert equal(after.key, state.key)


@every_job
def test_many_steps_are_single_steps(job):
    step, job = jitted(job), JOBS[job]()
    state, losses = job.state(), []
    for item in items(job):
        state, metrics = step(state, item)
        losses.append(metrics["loss"])
    advance = train.many_steps(job.estimator, job.optimizer, job.task.train.batch)
    many, record = advance(job.state(), job.task.train.read(0, N))
    assert record["loss"].shape == record["grad_norm"].shape == (N,)
    close(many, state)
    close(record["loss"], jnp.stack(losses))


def test_metrics_are_the_norms_of_gradient_and_update():
    job = adding()._replace(optimizer=optax.sgd(0.125))
    state, (item, *_) = job.state(), items(job)
    after, metrics = jax.jit(step_of(job))(state, item)
    moved = jax.tree.map(jnp.subtract, after.params, state.params)
    norm = math.sqrt(sum(float((a**2).sum()) for a in jax.tree.leaves(moved)))
    np.testing.assert_allclose(metrics["update_norm"], norm, rtol=1e-4)
    np.testing.assert_allclose(metrics["grad_norm"], norm / 0.125, rtol=1e-4)


@pytest.mark.parametrize(("size", "max_norm"), [(300.0, 1.0), (1e-4, 1e-4), (2.0, 8.0)])
def test_clipping_of_the_whole_gradient_in_half_precision(size, max_norm):
    grads = dict(
        a=jnp.full(50, size, jnp.float16), b=jnp.full((5, 10), -size, jnp.float16)
    )
    clip = train.clip_by_global_norm(max_norm)
    got, _ = clip.update(grads, clip.init(grads))
    gain = min(1, max_norm / (10 * float(grads["a"][0])))
    for name, g in grads.items():
        assert got[name].dtype == jnp.float16
        np.testing.assert_allclose(got[name], gain * np.asarray(g, "d"), rtol=5e-3)
        assert (got[name] != 0).all()


def test_clipping_is_that_of_optax_in_float32_and_keeps_directions_of_complex_numbers():
    rng = np.random.default_rng(0)
    grads = [jnp.asarray(rng.normal(size=n), jnp.float32) for n in (3, 5)]
    for max_norm in (0.5, 100.0):
        got, want = (
            f(max_norm).update(grads, optax.EmptyState())[0]
            for f in (train.clip_by_global_norm, optax.clip_by_global_norm)
        )
        close(got, want)
    (turned,), _ = train.clip_by_global_norm(1.0).update([jnp.array([3j, 4])], None)
    np.testing.assert_allclose(turned, [0.6j, 0.8], rtol=1e-6)


def test_metrics_are_finite_where_a_square_is_not():
    """A gradient in float16 of norm 3000, whose square is more than float16 can hold."""

    def grad(params, state, batch, key):
        del params, batch, key
        grads = dict(w=jnp.full(100, 300.0, jnp.float16))
        return Gradient(jnp.float32(1), grads, state, jnp.float32(1), {})

    estimator = Estimator(lambda params, batch: (), grad)
    params, optimizer = dict(w=jnp.zeros(100, jnp.float16)), optax.sgd(0.125)
    state = train.TrainState(
        params,
        optimizer.init(params),
        (),
        jnp.int32(0),
        jax.random.key(0),
        jnp.int32(-1),
    )
    batch = lambda item, key: Batch(jnp.ones((2, 1, 1)), Side())
    after, metrics = train.step(estimator, optimizer, batch, state, ())
    np.testing.assert_allclose(metrics["grad_norm"], 3000, rtol=1e-3)
    np.testing.assert_allclose(metrics["update_norm"], 375, rtol=1e-3)
    assert int(after.bad) == -1


def test_the_carry_is_handed_on_and_the_key_changes():
    step, job = jitted("text, stream"), text()
    state, (item, *_) = job.state(), items(job)
    one, noise = step(state, item)
    assert not equal(one.estimator_state, state.estimator_state)
    _, other = step(state._replace(position=state.position + 1), item)
    assert float(noise["loss"]) != float(other["loss"])  # dropout draws anew


def rated(rate) -> optax.GradientTransformation:
    return optax.inject_hyperparams(optax.adam)(learning_rate=rate)


@pytest.mark.slow
def test_under_vmap_over_seeds_and_learning_rates():
    job = adding()._replace(optimizer=rated(1e-2))
    seeds, rates = (0, 1, 2), (1e-3, 1e-2, 3e-2)

    def state_of(seed, rate):
        state = job.state(seed)
        optimizer = state.opt_state._replace(
            hyperparams=dict(learning_rate=jnp.float32(rate))
        )
        return state._replace(opt_state=optimizer)

    separate = [state_of(*at) for at in zip(seeds, rates, strict=True)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *separate)
    step = jax.jit(step_of(job))
    many = jax.jit(jax.vmap(step_of(job), (0, None)))
    for item in items(job):
        separate = [step(state, item)[0] for state in separate]
        together, metrics = many(together, item)
    assert metrics["loss"].shape == (3,)
    assert len(set(np.asarray(metrics["loss"]).tolist())) == 3
    for i, state in enumerate(separate):
        close(jax.tree.map(lambda a, i=i: a[i], together), state, rtol=1e-4)


def twice_the_same(params, shape):
    zeros = jnp.zeros((*shape, 4))
    return zeros, zeros


def two_states(params, carry, x):
    h = jnp.tanh(params["w"] * carry[0] + x.sum(-1, keepdims=True) + carry[1])
    return (h, carry[1] * 0.5), h


def test_a_carry_whose_leaves_share_a_buffer():
    cell = cells.from_step(two_states, lambda key: dict(w=jnp.ones(4)), twice_the_same)
    model = models.features((cell,), 1, 4)
    task = adding().task
    estimator, optimizer = estimators.stream(model, task.objective), optax.sgd(0.1)
    state = train.init(model, estimator, optimizer, task.train, jax.random.key(0))
    advance = train.many_steps(estimator, optimizer, task.train.batch)
    after, _ = advance(state, task.train.read(0, 2))
    assert int(after.position) == 2


@pytest.mark.slow
def test_in_float64(tmp_path):
    with enable_x64(True):
        cell = cells.gru(2, 4, param_dtype=jnp.float64)
        model, task = models.features((cell,), 1, 4), tasks.adding(batch=3, T=6)
        estimator = estimators.exact(model, task.objective)
        options = train.RunOptions(updates=2, per_dispatch=1, evaluate_every=1)
        done = train.run(task, model, estimator, optax.sgd(0.1), options, tmp_path)
        assert all(
            a.dtype == jnp.float64 for a in jax.tree.leaves(done.state.params[0])
        )
        assert math.isfinite(done.held_out)


@every_job
def test_timings(job):
    job = JOBS[job]()
    found = train.timings(*job, job.state(), repeats=1, updates=2)
    assert set(found) == {"forward", "backward", "update"}
    assert all(math.isfinite(t) and t >= 0 for t in found.values())


# Batches without a step that counts


@pytest.mark.parametrize("how", ["mask", "weights"])
@pytest.mark.parametrize("make", [estimators.exact, estimators.stream])
def test_a_batch_without_a_real_step_counts_as_nothing(make, how):
    job = adding()
    task = emptied(job.task, [1], how)
    job = job._replace(task=task, estimator=make(job.model, task.objective))
    step, each = jax.jit(step_of(job)), items(job, 3)
    before, first = step(job.state(), each[0])
    after, metrics = step(before, each[1])
    assert equal((after.params, after.opt_state), (before.params, before.opt_state))
    assert (int(after.position), int(after.bad)) == (2, -1)
    assert {k: float(a) for k, a in metrics.items()} == dict.fromkeys(metrics, 0.0)
    if make is estimators.stream:  # steps that weigh nothing have been all the same
        assert equal(after.estimator_state, before.estimator_state) == (how == "mask")
    last, more = step(after, each[2])
    assert bool(first["real"])
    assert bool(more["real"])
    assert not equal(last.params, after.params)
    assert int(last.bad) == -1


def test_where_every_step_is_real_nothing_is_asked():
    job = text()
    _, metrics = jax.eval_shape(step_of(job), job.state(), items(job, 1)[0])
    assert set(metrics) == {"loss", "grad_norm", "update_norm"}


# Optimizers that ask for more than the gradient


ASKING = {
    "polyak_sgd": lambda: optax.polyak_sgd(max_learning_rate=0.1),
    "on plateau": lambda: optax.chain(
        optax.adam(1e-2), optax.contrib.reduce_on_plateau(patience=1, rtol=0.9)
    ),
    "momo": lambda: optax.contrib.momo(0.1),
    "backtracking": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)
    ),
    "zoom": lambda: optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(3)),
    "many": lambda: optax.MultiSteps(optax.polyak_sgd(0.1), 2),
    "sam": lambda: optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01)),
}


@pytest.mark.parametrize("name", ASKING)
def test_optimizers_are_given_what_they_ask_for(name):
    job = adding()._replace(optimizer=ASKING[name]())
    state, metrics = jax.eval_shape(step_of(job), job.state(), items(job, 1)[0])
    assert jax.tree.structure(state) == jax.tree.structure(job.state())


def test_what_they_are_given_is_of_the_batch():
    """`value_fn` is the loss of this batch; its derivative the estimator's gradient."""
    told = {}

    def update(grads, state, params, *, value, grad, value_fn, **more):
        told.update(value=value, grad=grad, of=jax.value_and_grad(value_fn)(params))
        told.update(elsewhere=value_fn(jax.tree.map(lambda a: a + 0.1, params)))
        return jax.tree.map(lambda a: -0.1 * a, grads), told

    optimizer = optax.GradientTransformationExtraArgs(lambda params: {}, update)
    job = text()._replace(optimizer=optimizer)  # with dropout, and a carry
    state, item = job.state(), items(job, 1)[0]

    @jax.jit
    def both(state):
        after, metrics = train.update(job.estimator, optimizer, job.task.train.batch,
                                      state, item)  # fmt: skip
        key, k_data = jax.random.split(jax.random.fold_in(state.key, state.position))
        batch = job.task.train.batch(item, k_data)
        moved = jax.tree.map(lambda a: a + 0.1, state.params)
        grad = lambda params: job.estimator.grad(
            params, state.estimator_state, batch, key
        )[:2]
        return after.opt_state, grad(state.params), grad(moved)[0]

    given, (loss, grads), elsewhere = both(state)
    assert float(given["value"]) == pytest.approx(float(loss), rel=1e-6)
    close(given["grad"], grads)
    close(given["of"], (loss, grads))
    assert float(given["elsewhere"]) == pytest.approx(float(elsewhere), rel=1e-6)
    assert float(elsewhere) != pytest.approx(float(loss), rel=1e-3)


def test_the_rate_falls_on_a_plateau():
    optimizer = optax.chain(
        optax.sgd(0.0), optax.contrib.reduce_on_plateau(patience=1, cooldown=0)
    )
    job = adding()._replace(optimizer=optimizer)
    advance = train.many_steps(job.estimator, optimizer, job.task.train.batch)
    state, metrics = advance(job.state(), np.zeros(4, np.int32))
    scale = float(state.opt_state[1].scale)
    losses, best, want = np.asarray(metrics["loss"]), np.inf, 1.0
    for loss in losses:  # as patience of one step has it
        want *= 1.0 if loss < (1 - 1e-4) * best else 0.1
        best = min(best, loss) if loss < (1 - 1e-4) * best else best
    assert scale == pytest.approx(want, rel=1e-4) != 1.0


@pytest.mark.parametrize("of", [lambda o: o, lambda o: optax.chain(optax.clip(1.0), o)])
def test_lbfgs_is_refused_by_name(of, tmp_path):
    job = adding()._replace(optimizer=of(optax.lbfgs()))
    with pytest.raises(ValueError, match="optimizer: optax.lbfgs compares"):
        job.run(tmp_path / "run", train.RunOptions(updates=1))
    assert not (tmp_path / "run").exists()
    params = adding().state().params
    state = adding().state()._replace(opt_state=job.optimizer.init(params))
    with pytest.raises(ValueError, match="optimizer: optax.lbfgs compares"):
        jax.eval_shape(step_of(job), state, items(job, 1)[0])


def test_what_is_no_optimizer_is_named():
    with pytest.raises(TypeError, match="optimizer: expected an optax .* got adam"):
        adding()._replace(optimizer=optax.adam).state()
