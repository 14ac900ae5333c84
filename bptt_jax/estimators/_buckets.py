"""No more steps than a batch needs, of a few that are compiled."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax._factory import expect, factory
from bptt_jax.estimators._batches import cut
from bptt_jax.estimators._gradient import gradient
from bptt_jax.types import Batch, Estimator


def in_buckets(f: Callable[[Batch], Any], batch: Batch, buckets: tuple[int, ...]):
    """`f(batch)`, on as few of the batch's first steps as hold all real ones.

    `f` must not read what is masked and be the same type for any number of steps: a
    gradient, a sum of losses.

    Args:
      f: of a batch.
      batch: leaves `[T, ...]`; without a mask all of it is taken.
      buckets: numbers of steps to choose from, ascending, the last one T; where there are
        less than two there is nothing to choose.

    Cost: `f` is traced and compiled once for each bucket and one of them runs; under
    `vmap` over batches all of them run.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import Batch, Side
    >>> mask = jnp.arange(8)[:, None] < jnp.array([3, 2])
    >>> batch = Batch(jnp.ones((8, 2, 1)), Side(mask=mask))
    >>> float(in_buckets(lambda b: b.inputs.sum(), batch, (4, 8)))
    8.0
    """
    mask = batch.side.mask
    if len(buckets) < 2 or mask is None:
        return f(batch)
    T = trees.length(batch.inputs)
    if list(buckets) != sorted(set(buckets)) or buckets[-1] != T or buckets[0] < 1:
        raise ValueError(
            f"buckets: expected ascending steps, the last one the batch's {T}, got "
            f"{buckets}"
        )
    index = (jnp.asarray(buckets[:-1], jnp.int32) < _needed(mask)).sum(dtype=jnp.int32)
    first = [functools.partial(cut, start=0, stop=steps) for steps in buckets]
    return lax.switch(index, [lambda b, cut=cut: f(cut(b)) for cut in first], batch)


def _needed(mask: Array) -> Array:
    """Steps up to the last that is real of any example."""
    real = mask.any(range(1, mask.ndim))
    numbers = jnp.arange(1, len(mask) + 1, dtype=jnp.int32)
    return jnp.where(real, numbers, jnp.zeros_like(numbers)).max()


@factory
def bucketed(estimator: Estimator, buckets: tuple[int, ...]) -> Estimator:
    """An estimator that runs no more steps of a batch than its longest example has.

    The gradient is the same, to rounding: what is left out is masked for all examples.
    `train.run` and `sweep.training` do this to the estimator by `Stream.buckets`.

    Args:
      estimator: whose state has no axis as long as a batch.
      buckets: numbers of steps that are compiled, ascending, the last one those of a whole
        batch. Where there are less than two the estimator is returned as it is.

    Cost: see `in_buckets`.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import Batch, Side, cells, estimators, objectives
    >>> exact = estimators.exact(cells.elman(1, 2), objectives.squared_error)
    >>> mask = jnp.arange(8)[:, None] < jnp.array([3, 2])
    >>> batch = Batch(jnp.ones((8, 2, 1)), Side(mask=mask, targets=jnp.ones((8, 2, 2))))
    >>> params = cells.elman(1, 2).init(jax.random.key(0))
    >>> found = estimators.bucketed(exact, (4, 8)).grad(params, (), batch, jax.random.key(1))
    >>> int(found.steps)
    5
    """
    expect(Estimator, estimator=estimator)
    if len(buckets) < 2:
        return estimator

    def grad(params, state, batch, key):
        def one(batch):
            return gradient(estimator, params, state, batch, key)

        return in_buckets(one, batch, buckets)

    return Estimator(estimator.init, grad)
