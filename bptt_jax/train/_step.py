"""One update of the parameters as a pure function, and many of them as one program."""

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from bptt_jax import _deprecated, estimators
from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.types import (
    Batch,
    Estimator,
    Layer,
    Objective,
    PyTree,
    Sections,
    Stream,
    StreamBatch,
    Task,
)

TAKEN = frozenset({
    "loss", "grad_norm", "update_norm", "real", "step", "held_out", "final_held_out",
})  # fmt: skip
"""What an update tells by these names, or lines of `metrics.jsonl` are told apart by."""


@_deprecated.field("carry", "estimator_state", gone="0.3.0")
class TrainState(NamedTuple):
    """All that a run is, but for its settings.

    params, opt_state: of the model and of the optimizer.
    estimator_state: what the estimator hands on from batch to batch.
    position: int32, updates done, which is also the next batch's number in its stream.
    key: PRNG key of the run; the key of batch i is `fold_in(key, i)`.
    bad: int32, the first update whose loss, gradient or itself was not finite; -1: none.
        From it on nothing changes any more.
    """

    params: PyTree
    opt_state: Any
    estimator_state: PyTree
    position: Array
    key: Array
    bad: Array


def init(
    model: Layer | Sections,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    stream: Stream,
    key: Array,
) -> TrainState:
    """The state before the first update. Everything is drawn from `key`.

    Raises:
      TypeError, ValueError: the optimizer is none, or `optax.lbfgs`; see `step`.
    """
    k_params, k_run = jax.random.split(trees.typed_keys(key))
    _check_optimizer(optimizer)
    shapes = jax.eval_shape(model.init, k_params)
    _refuse_lbfgs(jax.eval_shape(optimizer.init, shapes))
    params = model.init(k_params)
    batch = _batch_at(stream, 0, k_run)
    state = TrainState(
        params,
        optimizer.init(params),
        estimator.init(params, batch),
        jnp.zeros((), jnp.int32),
        k_run,
        jnp.full((), -1, jnp.int32),
    )
    # Leaves may share a buffer (two zeros of one carry), which cannot be donated twice.
    return jax.tree.map(jnp.copy, state)


def _batch_at(stream: Stream, position: int, key: Array) -> Batch:
    item = jax.tree.map(lambda a: jnp.asarray(a[0]), stream.read(position, 1))
    return stream.batch(item, key)


def step(
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    batch: StreamBatch,
    state: TrainState,
    item: PyTree,
) -> tuple[TrainState, dict[str, Array]]:
    """One update on one batch: `(…, state, item) -> (state, metrics)`, pure.

    Args:
      estimator: where the gradient comes from; that of complex parameters, which is
        JAX's, is conjugated before the optimizer sees it.
      optimizer: an optax optimizer. Those that ask for more than the gradient are given
        `value`, `grad` and `value_fn`: the loss of this batch, its gradient, and the loss
        as a function of the parameters, whose derivative is the estimator's gradient.
        `optax.lbfgs` is refused: it compares gradients of one function, and each update
        here has another.
      batch: as of `types.Stream`.
      state: before the update.
      item: what the batch is made of.

    Returns:
      The state after it, and `loss`, `grad_norm` (before the optimizer sees it),
      `update_norm` (after), and what else the estimator tells (`window`, `omega`, what
      its `aux` gives). Where one is not finite the state is unchanged, but for `bad`.
      Where batches have a mask or weights also `real`: False, and all others zero, where
      no step of the batch counts; then parameters and the optimizer's state are
      unchanged, and the estimator's state and the position go on.

    Raises:
      ValueError: the estimator tells something by one of these names.
    """
    after, metrics = update(estimator, optimizer, batch, state, item)
    finite = jnp.stack([jnp.isfinite(a) for a in metrics.values()]).all()
    fine = (state.bad < 0) & finite
    first_bad = jnp.where(state.bad < 0, state.position, state.bad)
    stuck = state._replace(bad=first_bad)
    chosen = jax.tree.map(lambda a, b: jnp.where(fine, a, b), after, stuck)
    return chosen, metrics


def update(
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    batch: StreamBatch,
    state: TrainState,
    item: PyTree,
) -> tuple[TrainState, dict[str, Array]]:
    """`step`, whatever its metrics: one that is not finite changes the state, too."""
    key, k_data = jax.random.split(jax.random.fold_in(state.key, state.position))
    made = batch(item, k_data)
    found = estimators.gradient(
        estimator, state.params, state.estimator_state, made, key
    )
    _refuse_taken(found.metrics)
    loss, grads = found.loss, found.grads
    grads = trees.conjugate(grads)  # where the loss rises: JAX's are ∂L/∂x - i ∂L/∂y
    _refuse_lbfgs(state.opt_state)
    value_fn = _value_fn(estimator, state.estimator_state, made, key)
    extra = _wanted(optimizer, value=loss, grad=grads, value_fn=value_fn)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes, as in adam's β^t
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, **extra
        )
    params = optax.apply_updates(state.params, updates)
    norm, moved = (trees.norm(jax.tree.leaves(a)) for a in (grads, updates))
    metrics = dict(loss=loss, grad_norm=norm, update_norm=moved) | found.metrics
    if (real := estimators.any_real(made)) is not True:
        before = state.params, state.opt_state
        params, opt_state = trees.where(real, (params, opt_state), before)
        metrics = trees.only(real, metrics) | dict(real=real)
    after = TrainState(
        params, opt_state, found.state, state.position + 1, state.key, state.bad
    )
    return after, metrics


def _refuse_taken(metrics: dict[str, Array]) -> None:
    for name in metrics:
        if name in TAKEN:
            raise ValueError(
                "estimator: expected metrics by names other than "
                f"{', '.join(sorted(TAKEN))}, got {name!r}"
            )


def _value_fn(estimator: Estimator, state: PyTree, batch: Batch, key: Array):
    """`params -> loss` on one batch. Its derivative is the estimator's own gradient."""

    @jax.custom_vjp
    def value(params, state, batch, key):
        return estimators.gradient(estimator, params, state, batch, key).loss

    def forward(params, state, batch, key):
        found = estimators.gradient(estimator, params, state, batch, key)
        return found.loss, found.grads

    def backward(grads, d_value):
        d_params = jax.tree.map(lambda g: d_value.astype(g.dtype) * g, grads)
        return d_params, None, None, None

    value.defvjp(forward, backward)
    return lambda params: value(params, state, batch, key)


def _wanted(optimizer: optax.GradientTransformation, **extra: Any) -> dict[str, Any]:
    """What the optimizer's update takes of the extra arguments (few take all)."""
    taken = inspect.signature(optimizer.update).parameters
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return extra
    return {name: a for name, a in extra.items() if name in taken}


def _check_optimizer(optimizer: Any) -> None:
    for name in ("init", "update"):
        if not callable(getattr(optimizer, name, None)):
            raise TypeError(
                "optimizer: expected an optax optimizer, as optax.adam(1e-3) is, got "
                f"{getattr(optimizer, '__name__', type(optimizer).__name__)}"
            )


def _refuse_lbfgs(opt_state: Any) -> None:
    """Wherever in a chain it stands."""
    of_lbfgs = lambda node: isinstance(node, optax.ScaleByLBFGSState)
    if any(map(of_lbfgs, jax.tree.leaves(opt_state, is_leaf=of_lbfgs))):
        raise ValueError(
            "optimizer: optax.lbfgs compares gradients of one function from update to "
            "update, and here each has another batch; expected one that is made for "
            "that, as optax.adam or optax.polyak_sgd"
        )


@factory
def many_steps(
    estimator: Estimator, optimizer: optax.GradientTransformation, batch: StreamBatch
) -> Callable:
    """`(state, items) -> (state, metrics [n])`: n updates in one call of a program.

    The state's buffers are donated: use the one that is returned.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(state: TrainState, items: PyTree):
        return lax.scan(
            functools.partial(step, estimator, optimizer, batch), state, items
        )

    return advance


class Sums(NamedTuple):
    """Of an evaluation so far: the carry to go on with, losses, and steps that count.

    losses: a sum; where the objective gives a tree of losses one for each leaf.
    """

    carry: PyTree
    losses: PyTree
    steps: Array


@factory
def evaluator(
    model: Layer | Sections,
    objective: Objective,
    batch: StreamBatch,
    stateful: bool,
    buckets: tuple[int, ...] = (),
):
    """`(params, sums or None, items) -> sums` over the batches of the items, jitted.

    An objective that gives a tree of losses has a sum of each, all of one pass. Where the
    task is stateful the carry goes on from batch to batch. Without keys, so that nothing is
    dropped out. `batch` and `buckets` are those of the `types.Stream`.
    """
    total = _total_loss(model, objective, buckets)
    stateful = stateful and not isinstance(model, Sections)

    @jax.jit
    def add(params: PyTree, sums: Sums | None, items: PyTree) -> Sums:
        key = jax.random.key(0)
        first = batch(jax.tree.map(lambda a: a[0], items), key)
        fresh = estimators.init_carry(model, params, first)

        def one(sums, item):
            carry = sums.carry if stateful else fresh
            carry, *more = total(params, carry, batch(item, key))
            more = jax.tree.map(lambda a: a.astype(zero.dtype), tuple(more))
            return Sums(carry, *jax.tree.map(jnp.add, tuple(sums[1:]), more)), None

        zero, of_one = jnp.zeros(()), lambda batch: total(params, fresh, batch)[1]
        nothing = jax.tree.map(lambda _: zero, jax.eval_shape(of_one, first))
        return lax.scan(one, sums or Sums(fresh, nothing, zero), items)[0]

    return add


def _total_loss(
    model: Layer | Sections, objective: Objective, buckets: tuple[int, ...]
):
    """`estimators.total_loss` on no more steps than a batch needs."""
    total = estimators.total_loss(model, objective)

    def some(params, carry, batch):
        one = functools.partial(total, params, carry)
        return estimators.in_buckets(one, batch, buckets)

    return some


@_deprecated.argument("steps", "updates", gone="0.3.0")
def timings(
    task: Task,
    model: Layer | Sections,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    repeats: int = 3,
    updates: int = 4,
) -> dict[str, float]:
    """Seconds of the parts of `step` on this machine: forward, backward, update.

    Each part is a program by itself that goes over so many batches, as training does
    (the least of some repeats); the backward is what the gradient takes beyond the loss
    alone.
    """
    items = task.train.read(0, updates)
    total = _total_loss(model, task.objective, task.train.buckets)
    estimator = estimators.bucketed(estimator, task.train.buckets)
    first = _batch_at(task.train, 0, state.key)
    fresh = estimators.init_carry(model, state.params, first)

    def over_items(of_batch):
        """Parameters change a little with each batch, so that no part leaves the loop."""

        def one(params, item):
            value, grads = of_batch(params, task.train.batch(item, state.key))
            grads = params if grads is None else grads
            return jax.tree.map(
                lambda p, g: p + (1e-9 * value).astype(p.dtype) * g, params, grads
            ), value

        return jax.jit(lambda params: lax.scan(one, params, items))

    def loss(params, batch):
        return total(params, fresh, batch)[1], None

    def gradient(params, batch):
        at = params, state.estimator_state, batch, state.key
        found = estimators.gradient(estimator, *at)
        return found.loss, found.grads

    def update(params, opt_state):
        value_fn = _value_fn(estimator, state.estimator_state, first, state.key)
        extra = _wanted(optimizer, value=jnp.ones(()), grad=params, value_fn=value_fn)
        changes, opt_state = optimizer.update(params, opt_state, params, **extra)
        return optax.apply_updates(params, changes), opt_state

    forward, both = (over_items(f) for f in (loss, gradient))
    update = jax.jit(update)
    forward_s = _seconds(lambda: forward(state.params), repeats) / updates
    both_s = _seconds(lambda: both(state.params), repeats) / updates
    update_s = _seconds(lambda: update(state.params, state.opt_state), repeats)
    return dict(
        forward=forward_s, backward=max(both_s - forward_s, 0.0), update=update_s
    )


def _seconds(call: Callable, repeats: int) -> float:
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
    return min(times)
