"""Auxiliary values of estimators: means beside the loss, of no influence on the gradient."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, objectives, sweep, train, unrolls
from bptt_jax.types import Batch, Metric, Side, Weighted
from support import tiers
from support.gradients import quick_jit
from support.training import adding

B, I, H = 3, 2, 4
CELL = cells.elman(I, H)
OBJECTIVE = objectives.squared_error
KEY = jax.random.key(7)
rng = np.random.default_rng(0)
PARAMS = dict(
    w_x=rng.normal(size=(I, H)), w_h=rng.normal(size=(H, H)), b=rng.normal(size=H)
)


def told(ys, targets):
    """An error, and one whose derivative is infinite."""
    return dict(MAE=abs(ys - targets).mean(-1), root=1 + jnp.sqrt(0 * ys[..., 0]))


def batch_of(kind, T) -> Batch:
    rng = np.random.default_rng(T)
    inputs, targets = rng.normal(size=(T, B, I)), rng.normal(size=(T, B, H))
    mask, weights = np.arange(T * B).reshape(T, B) % 4 != 1, rng.random((T, B))
    given = jnp.asarray(targets)
    if "weights" in kind:
        given = Weighted(given, jnp.asarray(weights))
    return Batch(
        jnp.asarray(inputs), Side(jnp.asarray(mask) if "mask" in kind else None,
                                  targets=given)
    )  # fmt: skip


def by_hand(batch) -> dict:
    """The means, of a plain loop's outputs."""
    side = batch.side._replace(targets=None)
    carry = CELL.init_carry(PARAMS, (B,))
    _, ys = unrolls.scan(CELL, PARAMS, carry, batch.inputs, side)
    targets, counts = batch.side.targets, np.ones(batch.inputs.shape[:2])
    if isinstance(targets, Weighted):
        targets, counts = targets.targets, np.asarray(targets.weights)
    counts = counts if side.mask is None else np.where(side.mask, counts, 0)
    each = told(np.asarray(ys), targets)
    return {name: (a * counts).sum() / counts.sum() for name, a in each.items()}


MAKE = {
    "exact": estimators.exact,
    "stream": estimators.stream,
    "overlapping": functools.partial(estimators.stream, window=2, stride=1),
    "checkpointed": functools.partial(
        estimators.exact, unroll=functools.partial(unrolls.checkpointed, slots=2)
    ),
}
FAST = [("exact", "mask, weights", 7), ("overlapping", "mask", 2)]


@pytest.mark.parametrize(
    ("name", "kind", "T"),
    [
        tiers.slow((name, kind, T), (name, kind, T) in FAST)
        for name in MAKE
        for kind in ("plain", "mask", "weights", "mask, weights")
        for T in (1, 2, 7)
    ],
)
def test_means_are_told_and_the_gradient_is_that_without(name, kind, T):
    batch = batch_of(kind, T)

    def found(aux):
        estimator = MAKE[name](CELL, OBJECTIVE, aux=aux)
        return estimator.grad(PARAMS, estimator.init(PARAMS, batch), batch, KEY)

    both, without = quick_jit(lambda: (found(told), found(None)))()
    want = by_hand(batch)
    assert sorted(both.metrics) == sorted(want) == ["MAE", "root"]
    for name, value in want.items():
        np.testing.assert_allclose(both.metrics[name], value, rtol=1e-6)
    assert without.metrics == {}
    for a, b in zip(*map(jax.tree.leaves, (both.grads, without.grads)), strict=True):
        assert T == 1 or np.abs(b).max() > 1e-4  # nothing recurs in one step
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert float(both.loss) == pytest.approx(float(without.loss), rel=1e-12)


def test_over_devices_whole_numbers_are_left_out():
    """They have no mean; `test_data_parallel` has the others."""
    one, batch = estimators.exact(CELL, OBJECTIVE, aux=told), batch_of("mask", 2)

    def counted(*at):
        found = one.grad(*at)
        return found._replace(metrics=found.metrics | dict(window=jnp.int32(3)))

    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = estimators.data_parallel(one._replace(grad=counted), mesh)
    found = jax.eval_shape(spread.grad, PARAMS, (), batch, KEY)
    assert sorted(found.metrics) == ["MAE", "root"]


REFUSED = {
    "no function": (3, TypeError, "aux: expected a function"),
    "no names": (
        lambda ys, targets: ys.sum(-1), TypeError, r"aux: .*\{name: values \[K, B\]\}"
    ),
    "names that are none": (lambda ys, targets: {3: ys.sum(-1)}, TypeError, "aux: "),
    "a mean": (
        lambda ys, targets: dict(a=ys.mean()), ValueError,
        r"aux: expected real numbers \[2, 3\] of 'a', .*float64\[\]",
    ),
    "all outputs": (
        lambda ys, targets: dict(a=ys), ValueError, r"aux: .*got float64\[2, 3, 4\]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_value_of_each_step_is_refused(name):
    aux, kind, match = REFUSED[name]
    with pytest.raises(kind, match=match):
        estimators.exact(CELL, OBJECTIVE, aux=aux).grad(
            PARAMS, (), batch_of("plain", 2), KEY
        )


# In training

OPTIONS = train.RunOptions(
    updates=3, per_dispatch=3, evaluate_batches=1, final_batches=1
)


def judging(name):
    job = adding()
    aux = lambda ys, targets: {name: abs(ys - targets).sum(-1)}
    estimator = estimators.exact(job.model, job.task.objective, aux=aux)
    metric = {"MAE": Metric(lambda ys, targets: abs(ys - targets).sum(-1))}
    return job._replace(estimator=estimator, task=job.task._replace(metrics=metric))


def told_by_step(job):
    """Shapes of what one update tells."""
    step = functools.partial(
        train.step, job.estimator, job.optimizer, job.task.train.batch
    )
    return jax.eval_shape(step, jax.eval_shape(job.state), jnp.int32(0))[1]


def test_an_update_tells_them():
    assert set(told_by_step(judging("MAE"))) - set(told_by_step(adding())) == {"MAE"}


@pytest.mark.slow
def test_each_update_of_a_run_has_them(tmp_path):
    """By the name of a metric, which the held-out part has in a place of its own."""
    judging("MAE").run(tmp_path, OPTIONS)
    text = (tmp_path / "metrics.jsonl").read_text()
    lines = [json.loads(x) for x in text.splitlines()]
    assert [x["step"] for x in lines if "MAE" in x] == [1, 2, 3]
    for line in lines[:3]:  # the square of a mean is no more than the mean of squares
        assert 0 < line["MAE"] ** 2 <= line["loss"] * (1 + 1e-5)
    assert lines[-1]["final_metrics"]["MAE"] > 0


@pytest.mark.parametrize("name", ["loss", "step"])
def test_names_that_an_update_or_a_line_has_are_refused(name):
    with pytest.raises(ValueError, match=f"estimator: .*names other.*got '{name}'"):
        told_by_step(judging(name))


def test_a_sweep_refuses_the_names_of_metrics():
    """Its rows have both in one place."""
    job, config = judging("MAE"), dict(lr=jax.ShapeDtypeStruct((), "f"))
    made = sweep.training(job.task, job.model, job.estimator, lambda lr: optax.adam(lr))
    state = jax.eval_shape(made.init, config, KEY)
    with pytest.raises(
        ValueError, match="estimator: .*of the held-out part, got 'MAE'"
    ):
        jax.eval_shape(made.step, config, state, jnp.int32(0))
