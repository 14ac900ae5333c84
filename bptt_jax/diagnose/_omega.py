"""A regulariser that keeps the gradient's norm as it goes back through time.

With δ_t = dL/ds_t and J_t = ∂s_t/∂s_{t-1},

    (1)  Ω = mean_t (|δ_t J_t|² / |δ_t|² - 1)²      over steps and examples with |δ_t|² > ε,
                                                    but masked steps and resets

in which δ_t and s_{t-1} are constants: only what J_t owes the weights directly is
differentiated. (1) has the squared norms of the authors' code; their paper has the norms.

Pascanu, Mikolov, Bengio (2013), "On the difficulty of training recurrent neural
networks", section 3.3.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import _pytrees as trees
from bptt_jax import estimators, layers, unrolls
from bptt_jax._factory import factory
from bptt_jax.diagnose._gradient_flow import squares, states_of, watched
from bptt_jax.types import (
    Batch,
    Cell,
    Estimator,
    Gradient,
    Layer,
    Objective,
    PyTree,
    Seen,
)

SMALLEST = 1e-20  # of |δ|²: below it the ratio is one of roundings


def _see_omega(seen: Seen):
    """Sums over a stretch: of (1), of its gradient, and how many they are over."""
    d_states = states_of(seen)
    before = squares(d_states)
    kept = before > SMALLEST
    if seen.side.mask is not None:
        kept = kept & seen.side.mask
    if seen.side.resets is not None:  # nothing goes back through them by intent
        kept = kept & ~seen.side.resets
    safe = jnp.where(kept, before, jnp.ones_like(before))  # 0 / 0 would be NaN

    def total(params):
        def after(carries):
            return seen.cell.step(params, carries, seen.xs)[0]

        _, back = trees.pullback(after, seen.carries)
        (d_before,) = back(d_states)
        off = squares(d_before) / safe - 1
        return jnp.where(kept, off * off, jnp.zeros_like(off)).sum()

    value, back = trees.pullback(total, seen.params)
    (grads,) = back(jnp.ones_like(value))
    shown = value, trees.floats(seen.params, grads), kept.sum().astype(value.dtype)
    return unrolls.contract(seen), jax.tree.map(lambda a: a[None], shown)


def _placed(params: PyTree, paths: list, each: list[list]) -> PyTree:
    """Gradients of parts in a gradient of the whole, zero elsewhere."""
    rest = [iter(grads) for grads in each]
    flat, structure = jax.tree_util.tree_flatten_with_path(params)

    def at(path, leaf):
        if not trees.is_floating(leaf):
            return None
        for part, grads in zip(paths, rest, strict=True):
            if path[: len(part)] == part:
                return next(grads).astype(leaf.dtype)
        return jnp.zeros_like(leaf)

    return structure.unflatten([at(*pair) for pair in flat])


class Omega(NamedTuple):
    """A loss and the regulariser beside it, each with its gradient.

    loss, grads: as of `estimators.exact`.
    value: Ω, a mean over all recurrent layers together.
    d_params: its gradient; zero for what is not recurrent.
    """

    loss: Array
    grads: PyTree
    value: Array
    d_params: PyTree


@functools.partial(jax.jit, static_argnames=("model", "objective", "chunk"))
def omega(
    model: Layer | Cell,
    objective: Objective,
    params: PyTree,
    batch: Batch,
    *,
    carry: PyTree = None,
    chunk: int | None = None,
) -> Omega:
    """Ω of (1) and its gradient, from the same backward pass as the loss's.

    Args: as of `gradient_flow`.

    Returns:
      An `Omega`. Where no step has a gradient to speak of Ω is 0.

    Cost: beside the gradient one step back for each step, differentiated once: about
    twice its time; memory for a gradient of the recurrent weights a stretch.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, diagnose, models, tasks
    >>> task, model = tasks.adding(batch=4, T=20), models.features((cells.elman(2, 8),), 1, 8)
    >>> batch = task.train.batch(jnp.int32(0), jax.random.key(1))
    >>> found = diagnose.omega(model, task.objective, model.init(jax.random.key(0)), batch)
    >>> bool(found.value > 0), found.d_params[0]["w_h"].shape
    (True, (8, 8))
    """
    at = model, objective, params, batch, carry, chunk
    loss, back = watched(*at, _see_omega)
    values, grads, counts = zip(*back.seen, strict=True)
    count = jnp.maximum(sum(c.sum() for c in counts), 1)
    each = [[g.sum(0) / count.astype(g.dtype) for g in part] for part in grads]
    value = sum(v.sum() for v in values) / count
    return Omega(loss, back.d_params, value, _placed(params, back.paths, each))


@factory
def regularised(
    model: Layer | Cell, objective: Objective, *, alpha: float, chunk: int | None = None
) -> Estimator:
    """The gradient of the loss plus α times that of Ω; batches do not know of each other.

    Args:
      model, objective: as of `estimators.exact`.
      alpha: α; the authors' code has 2.
      chunk: as of `unrolls.bptt`.

    Returns:
      An estimator; the loss is that without Ω, which is in the metrics as `omega`.
    """
    layers.lift(model, "model")

    def init(params, batch):
        del params, batch
        return ()

    def grad(params, state, batch, key):
        batch = estimators.with_keys(batch, key)
        found = omega(model, objective, params, batch, chunk=chunk)
        grads = jax.tree.map(
            lambda g, d: g + (alpha * d).astype(g.dtype), found.grads, found.d_params
        )
        steps, metrics = estimators.real_steps(batch), dict(omega=found.value)
        return Gradient(found.loss, grads, state, steps, metrics)

    return Estimator(init, grad)
