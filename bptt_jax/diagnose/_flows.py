"""The gradient on its way back through time, of every recurrent part at once.

A part inside of a function of the whole sequence (`wholes.bidirectional`) is run by an unroll of
that function's own, which returns outputs and no more. What every unroll does bring back is
the cotangent of `Side.targets`, step by step, in whichever direction it runs. So zeros `z_t`
of the shape of each part's state stand beside the targets,

    (1)  dL/dz_t := dL/ds_t     what a watched part sees pass by

and the gradient with respect to them is what is looked for. No value depends on them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import _pytrees as trees
from bptt_jax import estimators, layers
from bptt_jax.diagnose._gradient_flow import see_states
from bptt_jax.diagnose._names import names
from bptt_jax.types import (
    Batch,
    Cell,
    Layer,
    Objective,
    PyTree,
    Recurrent,
    Sections,
    Side,
    Weighted,
)


class _Beside(NamedTuple):
    """In the place of targets: these, and z of (1) of each part, leaves `[T, B, H]`."""

    targets: PyTree
    zeros: list[list[Array]]


def flows(
    model: Layer | Cell | Sections,
    objective: Objective,
    params: PyTree,
    batch: Batch,
    *,
    carry: PyTree = None,
) -> dict[str, Array]:
    """‖dL/ds_t‖ over time, of every recurrent part of a model, from one backward pass.

    Args:
      model: a cell, a layer with recurrent parts, or `models.sections`, whose parts may be in
        functions of the whole sequence.
      objective: see `bptt_jax.objectives`.
      params: of the model.
      batch: inputs `[T, B, ...]` with their side.
      carry: the state before the first step; None: the model's initial one.

    Returns:
      By the place of a part's parameters and what its equations are called, `"[0] lstm"`, in
      the order in which parts are run: `[T]`, in at least float32, the norm over examples
      and units of the gradient of the mean loss with respect to the state after each step,
      as `gradient_flow` has it; 0 at steps that are masked and hand nothing on. Of a part
      that comes after a pool it stands at the step whose target the pool took.
      `plots.flows` draws it.

    Raises:
      ValueError: the model has no recurrent part; or one of them is run by an unroll that
        JAX differentiates, which nothing passes by.

    Cost: the gradient's, and `[T, B, H]` for each leaf of each part's state.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, diagnose, layers, tasks
    >>> task = tasks.adding(batch=4, T=20)
    >>> model = layers.stack(cells.lstm(2, 8), cells.gru(8, 8), layers.dense(8, 1))
    >>> batch = task.train.batch(jnp.int32(0), jax.random.key(1))
    >>> found = diagnose.flows(model, task.objective, model.init(jax.random.key(0)), batch)
    >>> [(name, norms.shape) for name, norms in found.items()]
    [('[0] lstm', (20,)), ('[1] gru', (20,))]
    """
    model = layers.model_of(model, "model")
    called = names(model)
    norms = _norms(model, objective, params, batch, carry)
    return dict(zip(called, norms, strict=True))


@functools.partial(jax.jit, static_argnames=("model", "objective"))
def _norms(
    model: Layer | Sections, objective: Objective, params, batch: Batch, carry
) -> list[Array]:
    if carry is None:
        carry = estimators.init_carry(model, params, batch)
    each = enumerate(names(model))

    def seen(part: Recurrent) -> Layer:
        return _seen(part, *next(each))

    looked_at = layers.over(model, seen)
    total = estimators.total_loss(
        looked_at, lambda ys, beside: objective(ys, beside.targets)
    )

    def loss(zeros):
        side = batch.side._replace(targets=_beside(batch.side.targets, zeros))
        at = batch._replace(side=side)
        _, losses, steps = total(params, carry, at)
        return estimators.per_real_step(losses, at, steps)

    found = jax.grad(loss)(_zeros(model, params, batch))
    return [trees.norm([a.reshape(len(a), -1) for a in d], 1) for d in found]


def _beside(targets: PyTree, zeros: list) -> PyTree:
    if isinstance(targets, Weighted):
        return Weighted(_Beside(targets.targets, zeros), targets.weights)
    return _Beside(targets, zeros)


def _zeros(model: Layer | Sections, params, batch: Batch) -> list[list[Array]]:
    """z of (1): for each part the floating leaves of its state."""
    T, B = jax.tree.leaves(batch.inputs)[0].shape[:2]
    params = layers.with_context(params, batch.context)

    def of_part(part: layers.Part):
        own = functools.reduce(_at, part.path, params)
        state = jax.eval_shape(lambda p: part.recurrent.cell.init_carry(p, (B,)), own)
        return [jnp.zeros((T, *a.shape), a.dtype) for a in trees.floats(state, state)]

    return [of_part(part) for part in layers.parts(model)]


def _at(tree: PyTree, key: Any) -> PyTree:
    """What stands at a key of `jax.tree_util` in a tree."""
    if isinstance(key, jax.tree_util.GetAttrKey):
        return getattr(tree, key.name)
    return tree[key.idx if isinstance(key, jax.tree_util.SequenceKey) else key.key]


def _seen(part: Recurrent, number: int, name: str) -> Layer:
    """The part, which gives out (1) as the cotangent of its zeros, the number-th."""
    watching = part._replace(watch=see_states)

    def around(watched: Layer) -> Layer:
        fwd = _differentiated_by_nobody(name, watched.fwd)

        def bwd(params, carry, xs, side, *rest):
            d_params, d_carry, d_xs, _ = watched.bwd(params, carry, xs, side, *rest)
            d_targets = _with(side, number, d_params.shown)
            return d_params.d_params, d_carry, d_xs, d_targets

        over = lambda f: around(f(watching))
        return watched._replace(fwd=fwd, bwd=bwd, over=over)

    return around(layers.made(watching))


def _differentiated_by_nobody(name: str, fwd: Callable) -> Callable:
    """The `fwd` of a layer of which `bwd` is the derivative: where JAX takes another, nothing
    would pass by.
    """

    def refuse(*arguments):
        raise ValueError(
            f"model: {name} is run by an unroll that JAX differentiates, past which no "
            "gradient is handed on; expected unrolls.bptt, both_modes or checkpointed"
        )

    alone = jax.custom_vjp(lambda *arguments: fwd(*arguments))
    alone.defvjp(refuse, refuse)
    return alone


def _with(side: Side, number: int, d_states: PyTree) -> PyTree:
    """Cotangents of the targets: zero but for those of a part's zeros."""
    flat = [jnp.zeros_like(a) for a in trees.floats(side.targets, side.targets)]
    d_targets = trees.fill(side.targets, flat)
    weighted = isinstance(d_targets, Weighted)
    beside = d_targets.targets if weighted else d_targets
    own = [a for a in jax.tree.leaves(d_states) if trees.is_floating(a)]
    zeros = [own if i == number else d for i, d in enumerate(beside.zeros)]
    beside = beside._replace(zeros=zeros)
    return d_targets._replace(targets=beside) if weighted else beside
