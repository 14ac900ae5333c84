"""How far an estimator's gradient is from the exact one."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import _pytrees as trees
from bptt_jax import estimators
from bptt_jax.types import Batch, Estimator, PyTree


class Bias(NamedTuple):
    """An estimator's gradient g against the exact one e, over all parameters.

    A complex parameter counts as two real ones.

    cosine: g·e / (|g| |e|).
    relative_error: |g - e| / |e|.
    norm_ratio: |g| / |e|.
    """

    cosine: Array
    relative_error: Array
    norm_ratio: Array


def bias(
    estimator: Estimator,
    exact: Estimator,
    params: PyTree,
    batch: Batch,
    key: Array,
    *,
    state: PyTree = None,
    draws: int = 1,
) -> Bias:
    """How far an estimator's gradient is from the exact one on the same batch.

    Args:
      estimator: what is looked at.
      exact: what it is compared with, `estimators.exact` of the same model.
      params: parameters of the model.
      batch: inputs `[T, B, ...]` with their side.
      key: of the estimator's draws; the exact gradient gets the same ones.
      state: the estimator's; None: its initial one.
      draws: gradients of so many keys are averaged, both those of the estimator and the
        exact ones: for an unbiased estimator the error falls with the root of their
        number.

    Returns:
      A `Bias` of scalars.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import Batch, Side, cells, diagnose, estimators, layers, objectives
    >>> from bptt_jax import unrolls
    >>> from functools import partial
    >>> model, loss = layers.recurrent(cells.elman(1, 4)), objectives.squared_error
    >>> short = partial(unrolls.truncated, window=5)
    >>> batch = Batch(jnp.ones((20, 2, 1)), Side(targets=jnp.zeros((20, 2, 4))))
    >>> found = diagnose.bias(estimators.exact(model, loss, unroll=short),
    ...                       estimators.exact(model, loss),
    ...                       model.init(jax.random.key(0)), batch, jax.random.key(1))
    >>> bool(found.cosine < 1)
    True
    """
    if draws < 1:
        raise ValueError(f"draws: expected at least 1, got {draws}")
    state = estimator.init(params, batch) if state is None else state
    keys = jax.random.split(key, draws)

    def mean(of: Estimator, at: PyTree):
        grads = jax.lax.map(
            lambda k: estimators.gradient(of, params, at, batch, k).grads, keys
        )
        return [trees.widened(a).mean(0) for a in trees.floats(params, grads)]

    found, want = mean(estimator, state), mean(exact, exact.init(params, batch))
    apart = trees.norm([a - b for a, b in zip(found, want, strict=True)])
    sizes = trees.norm(found), trees.norm(want)
    units = trees.scaled(found, 1 / sizes[0]), trees.scaled(want, 1 / sizes[1])
    each = [jnp.vdot(a, b).real for a, b in zip(*units, strict=True)]
    cosine = functools.reduce(jnp.add, each)
    return Bias(cosine, apart / sizes[1], sizes[0] / sizes[1])
