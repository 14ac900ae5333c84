"""How the gradient of one step's loss falls with the steps it goes back.

    (1)  φ_k = mean |∂ℓ_t/∂s_{t-k}|        over examples, and over some t
    (2)  σ_k = |mean Σ_{j ≤ k} ∂ℓ_t/∂s_{t-j}|

Time is cut into windows of K steps; the loss of the last step of each goes back to the
window's first. So all of it costs one forward and one backward pass.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax import estimators, layers, unrolls
from bptt_jax.diagnose._gradient_flow import see_states, state_norms
from bptt_jax.types import Batch, Cell, Layer, Objective, PyTree, Weighted


class ByLag(NamedTuple):
    """Norms of the gradient of a step's loss, by lag k = 0 … K - 1.

    norms: `[K]`, φ_k of (1), over the states of all recurrent layers together.
    by_layer: a list of `[K]`, of each recurrent layer's state alone.
    sums: `[K]`, σ_k of (2).
    losses: how many losses the means are over; 0: there was none, all is NaN.
    """

    norms: Array
    by_layer: list
    sums: Array
    losses: Array


@functools.partial(jax.jit, static_argnames=("model", "objective", "lags", "chunk"))
def by_lag(
    model: Layer | Cell,
    objective: Objective,
    params: PyTree,
    batch: Batch,
    *,
    lags: int,
    carry: PyTree = None,
    chunk: int | None = None,
) -> ByLag:
    """The norm of ∂ℓ_t/∂s_{t-k} as a function of k.

    Args:
      model, objective, params, batch, carry, chunk: as of `gradient_flow`.
      lags: K, at most the T of the batch. The losses looked at are those of steps T,
        T - K, T - 2K, …, where the mask and the weights leave them; a task that is
        judged at its end alone wants K = T.

    Returns:
      A `ByLag`. What `ℓ` is: the objective of one step of one example, not divided.

    Raises:
      ValueError: there are fewer steps than lags.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, diagnose, models, tasks
    >>> task, model = tasks.adding(batch=4, T=20), models.features((cells.gru(2, 8),), 1, 8)
    >>> batch = task.train.batch(jnp.int32(0), jax.random.key(1))
    >>> found = diagnose.by_lag(model, task.objective, model.init(jax.random.key(0)),
    ...                         batch, lags=20)
    >>> found.norms.shape, bool(found.norms[19] < found.norms[0])
    ((20,), True)
    """
    T = trees.length(batch.inputs)
    if not 1 <= lags <= T:
        raise ValueError(f"lags: expected 1 to {T}, the batch's steps, got {lags}")
    layer = layers.with_loss(layers.lift(model, "model"), objective)
    carry = estimators.init_carry(model, params, batch) if carry is None else carry
    params = layers.with_context(params, batch.context)
    rest, along = T % lags, (batch.inputs, batch.side)
    if rest:
        carry, _ = unrolls.bptt(layer, params, carry, *trees.cut(along, 0, rest))
    last = jnp.zeros(lags, bool).at[-1].set(True)

    def one(carry, at):
        (carry, losses), back = unrolls.pullback(
            layer, params, carry, *at, watch=see_states, chunk=chunk
        )
        none = jax.tree.map(jnp.zeros_like, carry)
        seen = back(none, last.astype(losses.dtype)).seen
        counted = _counted(Batch(*at))
        return carry, (_sums(seen, counted), counted.sum(dtype=jnp.int32))

    windows = trees.fold(trees.cut(along, rest, T), T // lags)
    _, (sums, counts) = lax.scan(one, carry, windows)
    count = counts.sum()
    norms, by_layer, vectors = jax.tree.map(
        lambda a: a.sum(0)[::-1] / count.astype(a.dtype), sums
    )
    total = jax.tree.map(lambda a: jnp.cumsum(a, 0), vectors)
    return ByLag(norms, by_layer, state_norms(total), count)


def _counted(batch: Batch) -> Array:
    """`[B]`, whether the last step of an example has a loss."""
    side = batch.side
    counted = jnp.ones(jax.tree.leaves(batch.inputs)[0].shape[1], bool)
    if isinstance(side.targets, Weighted):
        counted = counted & (side.targets.weights[-1] != 0)
    return counted if side.mask is None else counted & side.mask[-1]


def _sums(seen: list, counted: Array):
    """Sums over the examples of norms `[K]`, all and by layer, and of vectors `[K, H]`."""
    each, together = [state_norms(d) for d in seen], state_norms(seen)
    vectors = [a.sum(1) for a in jax.tree.leaves(seen) if trees.is_floating(a)]
    real = lambda a: trees.only(counted, a.T).sum(0)
    return real(together), [real(a) for a in each], vectors
