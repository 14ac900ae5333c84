"""Truncation that finds its own window."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax import estimators, layers, unrolls
from bptt_jax._factory import factory
from bptt_jax.diagnose._by_lag import by_lag
from bptt_jax.diagnose._decay import fitted_rate, window
from bptt_jax.types import Cell, Estimator, Layer, Objective, PyTree


class Adaptive(NamedTuple):
    """What an adaptive truncation hands on.

    state: of the estimators of all windows.
    index: int32, of the window that is taken.
    age: int32, batches since it was chosen.
    """

    state: PyTree
    index: Array
    age: Array


@factory
def adaptive_truncation(
    model: Layer | Cell,
    objective: Objective,
    *,
    windows: tuple[int, ...] = (8, 16, 32, 64),
    tolerance: float = 0.1,
    every: int = 100,
    rate: Callable[..., Array] = fitted_rate,
    make: Callable[..., Estimator] = estimators.stream,
) -> Estimator:
    """Truncated BPTT with the shortest window whose relative bias is tolerable.

    Before the first batch, and again every so many batches, the gradient by lag is
    measured on the batch at hand (`by_lag`), and `diagnose.window` of it chooses. With
    a window of K every loss but those of the first K steps of a batch sees at least K
    lags and at most 2K (`unrolls.truncated` with a stride of K).

    Args:
      model, objective: as of `estimators.exact`.
      windows: to choose from, ascending; those longer than half the batch's steps are
        the whole batch (`unrolls.bptt`).
      tolerance: of the relative bias, see `diagnose.relative_bias` for what is bounded.
      every: batches between two choices.
      rate: how the decay is estimated from the norms, see `diagnose.window`.
      make: `estimators.stream` (the carry is handed on) or `estimators.exact`.

    Returns:
      An estimator whose metrics have `window`, the K taken.

    Cost: one program that holds the backward passes of all windows, of which one runs;
    two generations of cotangents, so up to twice the products of `bptt`'s backward.
    Under `vmap` all of them run.

    Aicher, Foti, Fox (2019), "Adaptively truncating backpropagation through time to
    control gradient bias".

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, diagnose, estimators, models, tasks
    >>> task, model = tasks.sine(batch=4, T=32), models.features((cells.gru(1, 8),), 1, 8)
    >>> estimator = diagnose.adaptive_truncation(model, task.objective, windows=(4, 8, 16),
    ...                                          make=estimators.exact)
    >>> batch = task.train.batch(jnp.int32(0), jax.random.key(1))
    >>> params = model.init(jax.random.key(0))
    >>> state = estimator.init(params, batch)
    >>> found = estimator.grad(params, state, batch, jax.random.key(2))
    >>> int(found.metrics["window"]) in (4, 8, 16)
    True
    """
    layers.lift(model, "model")
    whole = all(isinstance(w, int) and w >= 1 for w in windows)
    if not windows or not whole or list(windows) != sorted(set(windows)):
        raise ValueError(f"windows: expected ascending steps, got {windows!r}")
    if not tolerance > 0:
        raise ValueError(f"tolerance: expected a positive number, got {tolerance!r}")
    if every < 1:
        raise ValueError(f"every: expected at least 1 batch, got {every!r}")

    def estimator(steps: int, T: int) -> Estimator:
        if 2 * steps > T:
            return make(model, objective)
        cut = functools.partial(unrolls.truncated, window=2 * steps, stride=steps)
        return make(model, objective, unroll=cut)

    def init(params, batch):
        state = make(model, objective).init(params, batch)
        return Adaptive(state, jnp.int32(len(windows) - 1), jnp.int32(every))

    def choose(params, state, batch):
        """The index of the least window that is enough."""
        lags = min(windows[-1], trees.length(batch.inputs))
        carry = state.state if jax.tree.leaves(state.state) else None
        found = by_lag(model, objective, params, batch, lags=lags, carry=carry)
        wished = window(found.norms, found.sums, tolerance=tolerance, rate=rate)
        index = (jnp.asarray(windows, jnp.int32) < wished).sum(dtype=jnp.int32)
        index = jnp.minimum(index, jnp.int32(len(windows) - 1))
        return jnp.where(found.losses > 0, index, state.index)

    def grad(params, state, batch, key):
        T, due = trees.length(batch.inputs), state.age >= every
        index = lax.cond(due, lambda: choose(params, state, batch), lambda: state.index)
        each = [
            functools.partial(estimators.gradient, estimator(w, T)) for w in windows
        ]
        found = lax.switch(index, each, params, state.state, batch, key)
        age = jnp.where(due, jnp.int32(1), state.age + jnp.int32(1))
        if (real := estimators.any_real(batch)) is not True:  # nothing was measured
            age = jnp.where(real, age, state.age)
        taken = jnp.asarray(windows, jnp.int32)[index]
        return found._replace(
            state=Adaptive(found.state, index, age),
            metrics=found.metrics | dict(window=taken),
        )

    return Estimator(init, grad)
