"""What a sweep maps over its configurations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax import estimators, layers, train
from bptt_jax._factory import expect, functions, record, remembered
from bptt_jax.types import Estimator, Layer, PyTree, Sections, Stream, Task


def positions(first: int, n: int) -> np.ndarray:
    """The items of a training that reads nothing: the numbers of its steps."""
    return np.arange(first, first + n, dtype=np.int32)


@record
class Training(NamedTuple):
    """One training as pure functions of a configuration (name -> traced number).

    init: `(config, key) -> state`; of its leaves numbers of Python become arrays of the
        dtype that JAX gives them.
    step: `(config, state, item) -> (state, metrics)`; metrics: name -> scalar, `loss`
        among them. A step whose metrics are not finite is undone, and the last. Where
        there is `real` among them, means are over the steps where it is True.
    evaluate: `(config, state, held_out) -> metrics`, None where there is no such thing.
    figures: on the host, of what `evaluate` gave for one configuration: name -> number,
        as rows have them.
    read: `(first, n) -> items`, on the host, leaves `[n, ...]`: of the steps first …
        first + n - 1, the same for all configurations.
    held_out: what `evaluate` is given, arrays.
    about: `() -> dict`, values that JSON has: of which model on which task it is, so that
        `Best.load` makes a run of parameters; None where that is not known.
    """

    init: Callable
    step: Callable
    evaluate: Callable | None = None
    read: Callable = positions
    held_out: PyTree = None
    figures: Callable = dict
    about: Callable | None = None


class Keyed(NamedTuple):
    """The state of a training that was given as one function."""

    key: Array
    state: Any


def as_training(training: Training | Callable) -> Training:
    """`train_fn(config, key) -> (state, step)`, `step(state) -> (state, metrics)`."""
    if isinstance(training, Training):
        return training
    if not callable(training):
        raise TypeError(
            "training: expected a sweep.Training or a function (config, key) -> "
            f"(state, step), got {type(training).__name__}"
        )

    def init(config, key):
        return Keyed(key, training(config, key)[0])

    def step(config, keyed, item):
        del item
        _, one = training(config, keyed.key)
        state, metrics = one(keyed.state)
        return Keyed(keyed.key, state), metrics

    return Training(init, step)


@remembered
def training(
    task: Task,
    model: Layer | Sections,
    estimator: Estimator,
    optimizer: Callable[..., optax.GradientTransformation],
    *,
    held_out_batches: int = 4,
) -> Training:
    """The training of a model on a task, as `train.run` does it, for a sweep.

    Args:
      task, model, estimator: as of `train.run`.
      optimizer: hyperparameters by name -> an optax optimizer (see `train.step`),
        `optax.adam` or a function of one's own. Those that are columns of the space come
        from there, traced (`optax.inject_hyperparams`): nothing is compiled for their
        values.
      held_out_batches: of an evaluation, the first of the task's.

    Returns:
      A `Training` whose key is that of `train.run` with the same seed.

    >>> from bptt_jax import cells, estimators, models, sweep, tasks
    >>> import optax
    >>> task = tasks.adding(batch=4, T=10)
    >>> model = models.features((cells.gru(2, 8),), 1, 8)
    >>> one = sweep.training(task, model, estimators.exact(model, task.objective),
    ...                      lambda lr: optax.adam(lr))
    """
    expect(Task, task=task)
    expect(Estimator, estimator=estimator)
    functions(optimizer=optimizer)
    stream, held = task.train, task.held_out
    if stream.place is not None:
        raise ValueError(
            "task: its batches come from a reader that goes forward alone, and a sweep reads "
            "them again and again; expected arrays (tasks.arrays); train.run takes a reader"
        )
    n = min(held.length or held_out_batches, held_out_batches)
    held_out = jax.tree.map(np.asarray, held.read(0, n))
    losses = train.evaluation(task, model)
    estimator = estimators.bucketed(estimator, stream.buckets)
    if not _any_real(held, held_out):
        raise ValueError(f"task: no step of its first {n} held-out batches counts")

    def made(config):
        hyper = {k: v for k, v in config.items() if k != "seed"}
        return optax.inject_hyperparams(optimizer)(**hyper)

    def init(config, key):
        return train.init(model, estimator, made(config), stream, key)

    def step(config, state, item):
        after, told = train.update(estimator, made(config), stream.batch, state, item)
        _refuse_same(told, task)
        return after, told

    def evaluate(config, state, items):
        del config
        sums = losses(state.params, None, items)
        return jax.tree.map(lambda total: total / sums.steps, sums.losses)

    def figures(means):
        found = train.figures(task, means)
        return {"held_out": found.pop("loss")} | found

    def about():
        return train.described(task, layers.model_of(model))

    return Training(init, step, evaluate, stream.read, held_out, figures, about)


def _refuse_same(told: dict[str, Array], task: Task) -> None:
    """Of an update and of an evaluation, which are in one row."""
    for name in told:
        if name in task.metrics:
            raise ValueError(
                "estimator: expected metrics by names other than those of the task, which "
                f"are of the held-out part, got {name!r}"
            )


def _any_real(stream: Stream, items: PyTree) -> bool:
    def one(item):
        return jnp.asarray(estimators.any_real(stream.batch(item, jax.random.key(0))))

    return bool(jax.jit(lambda items: jax.lax.map(one, items).any())(items))


class Lane(NamedTuple):
    """A configuration that is being trained.

    state: of the training.
    position: int32, steps taken.
    diverged_at: int32, the step (from 1) that was not finite; -1: none. From it on
        nothing changes.
    """

    state: PyTree
    position: Array
    diverged_at: Array


def begin(training: Training, config: dict[str, Array]) -> Lane:
    """Before the first step; drawn from the column `seed` (0 where there is none)."""
    key = jax.random.key(config["seed"] if "seed" in config else 0)
    state = jax.tree.map(_array, training.init(config, key))
    return Lane(state, jnp.int32(0), jnp.int32(-1))


def _array(a: Any) -> Any:
    """A leaf as it is read again from a file: an array, of a dtype that is not weak."""
    return a if trees.is_key(a) else lax.convert_element_type(a, jnp.result_type(a))


def advance(
    training: Training, config: dict[str, Array], lane: Lane, items: PyTree, n: Array
) -> tuple[Lane, dict[str, Array]]:
    """n steps on the first n of the items; the metrics' means over them.

    Where the training diverges its metrics are NaN. A step that is not `real` is left
    out of the sums, see `over_real`.
    """

    def one(i, carry):
        lane, sums = carry
        item = jax.tree.map(lambda a: a[i], items)
        state, metrics = training.step(config, lane.state, item)
        finite = jnp.stack([jnp.isfinite(a) for a in metrics.values()]).all()
        fine = finite & (lane.diverged_at < 0)
        first = (lane.diverged_at < 0) & ~finite
        state = jax.tree.map(lambda a, b: jnp.where(fine, a, b), state, lane.state)
        position = lane.position + jnp.int32(1)
        bad = jnp.where(first, position, lane.diverged_at)
        more = {
            k: jnp.where(fine, a, jnp.nan).astype(jnp.float32)
            for k, a in metrics.items()
        }
        if "real" in more:
            real = jnp.asarray(metrics["real"]).astype(bool)
            more = trees.only(real | ~fine, more)
        sums = {k: sums[k] + a for k, a in more.items()}
        return Lane(state, position, bad), sums

    item = jax.tree.map(lambda a: a[0], items)
    shapes = jax.eval_shape(training.step, config, lane.state, item)[1]
    if "loss" not in shapes:
        raise ValueError(f"step: expected metrics with 'loss', got {sorted(shapes)}")
    sums = {k: jnp.float32(0) for k in shapes}
    lane, sums = jax.lax.fori_loop(jnp.int32(0), n, one, (lane, sums))
    return lane, {k: a / n.astype(jnp.float32) for k, a in sums.items()}


def over_real(means: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Means over all steps as means over the real ones; NaN where there was none."""
    if "real" not in means:
        return means
    means = dict(means)
    share = np.asarray(means.pop("real"))
    safe = np.where(share == 0, np.nan, share)
    return {k: np.asarray(a) / safe for k, a in means.items()}


def measure(
    training: Training, config: dict[str, Array], lane: Lane, held_out: PyTree
) -> dict[str, Array]:
    """The metrics of an evaluation; NaN where the training has diverged."""
    if training.evaluate is None:
        return {}
    found = training.evaluate(config, lane.state, held_out)
    return jax.tree.map(
        lambda a: jnp.where(lane.diverged_at < 0, a, jnp.nan).astype(jnp.float32), found
    )
