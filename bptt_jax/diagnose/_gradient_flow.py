"""The gradient on its way back through time.

    (1)  dL/ds_t = what comes from later steps + the cotangent of the step's own output
    (2)  dL/dW = Σ_t G_t,     G_t = Σ_b a_t^b ⊗ δ_t^b     the contribution of step t

(1) passes by in every backward pass and is only written down. Of (2) the norm alone is
kept: of the factors a and δ, without a product of the size of a weight; of a cell that
knows no factors one step's contribution exists at a time, never T copies of a weight.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax import cells, estimators, layers, unrolls
from bptt_jax.types import (
    Batch,
    Blocks,
    Cell,
    Layer,
    Objective,
    Outer,
    PyTree,
    Seen,
    Sum,
    Terms,
    Unsaid,
)


class Flow(NamedTuple):
    """A gradient, and what it was on its way.

    loss: the mean over real steps, as of an estimator.
    grads: its gradient, that of `estimators.exact`.
    d_states: for each recurrent layer dL/ds_t after each step t, its carry with leaves
        `[T, B, H]`; where the output is no part of the carry, from later steps alone.
        Refused where a `cells.from_step` cell does not show whether it is.
    """

    loss: Array
    grads: PyTree
    d_states: list


class Contributions(NamedTuple):
    """`Flow`, and the norms of what each step adds to each weight's gradient.

    norms: for each recurrent layer its params with leaves `[T]`: |Σ_b a_t ⊗ δ_t|, of the
        sum over the examples.
    """

    loss: Array
    grads: PyTree
    d_states: list
    norms: list


def states_of(seen: Seen) -> PyTree:
    """dL/ds_t, refused where it is not known whether the output is a part of s_t."""
    if isinstance(seen.cell.output, Unsaid):
        raise ValueError(
            "cell: expected it to be known whether its output is a part of its state, "
            "which dL/ds_t depends on; say cells.from_step(…, output=lambda carry: …), "
            "the leaves of the carry that are the output, or output=None: it is no part"
        )
    return seen.d_states


def see_states(seen: Seen):
    """The watch of (1)."""
    return unrolls.contract(seen), states_of(seen)


def _see_contributions(seen: Seen):
    """The watch of (2): by factors where all are known, else one step after another."""
    at = seen.params, seen.xs, seen.carries, seen.coeffs, seen.deltas
    factors, d_xs = seen.cell.vjp.factors(*at)
    each = jax.tree.leaves(factors, is_leaf=cells.is_factor)
    if not all(map(_is_known, each)):
        return _step_after_step(seen)
    norms = jax.tree.map(_of_factor, factors, seen.params, is_leaf=cells.is_factor)
    return (cells.summed(seen.params, factors), d_xs), (states_of(seen), norms)


def _is_known(factor) -> bool:
    if isinstance(factor, Blocks):
        return all(map(_is_known, factor.blocks))
    if isinstance(factor, Terms):  # the products of pairs of others are not made
        return all(isinstance(term, Sum) for term in factor.terms)
    return factor is None or isinstance(factor, Outer | Sum)


def _of_factor(factor, param) -> Array | None:
    """|G_t| of each step, `[K]`."""
    match factor:
        case Outer(a, d):
            return _of_products(a, d, jnp.ndim(param) - 1)
        case Sum(d):
            return _norms(_over_examples(d, param))
        case Terms(terms):
            each = [_over_examples(term.d, param) for term in terms]
            return _norms(functools.reduce(jnp.add, each))
        case Blocks(blocks, _):
            return trees.norm([_of_factor(block, param) for block in blocks], ())
    return None


def _over_examples(d: Array, param) -> Array:
    examples = tuple(range(1, d.ndim - jnp.ndim(param)))
    return d.sum(examples) if examples else d


def _norms(a: Array) -> Array:
    return trees.norm([a], tuple(range(1, a.ndim)))


def _of_products(a: Array, d: Array, rank: int) -> Array:
    """|Σ_b a_b ⊗ d_b| of each step; `rank`: how many axes of d are no examples.

    (3)  |Σ_b a_b ⊗ d_b|² = Σ_bb' (a_b · a_b') (d_b · d_b')

    without a product of the size of the weight, where that is the smaller of the two.
    """
    n, features = math.prod(a.shape[1:-1]), a.shape[-1]
    wide = math.prod(d.shape[d.ndim - rank :])
    if n == 1:
        return _norms(a) * _norms(d)
    if n * (features + wide) > features * wide:
        weight = jax.ShapeDtypeStruct((features, *d.shape[d.ndim - rank :]), d.dtype)

        def one(at):
            return trees.norm([cells.summed(weight, Outer(*(x[None] for x in at)))])

        return lax.map(one, (a, d))
    (a, of_a), (d, of_d) = _in_units(a), _in_units(d)
    both = _gram(a, 1) * _gram(d, rank)
    total = both.sum(tuple(range(1, both.ndim)))
    return jnp.sqrt(jnp.maximum(total.real, 0)) * of_a * of_d


def _in_units(a: Array) -> tuple[Array, Array]:
    """Each step in units of its largest number, so that squares stay in the range."""
    a = trees.widened(a)
    largest = jnp.abs(a).max(tuple(range(1, a.ndim)))
    unit = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    return a / trees.along(a, unit), unit


def _gram(a: Array, rank: int) -> Array:
    """Products of all pairs of examples, `[K, B, …, B, …]`."""
    last = tuple(range(a.ndim - rank, a.ndim))
    return lax.dot_general(a, a.conj(), ((last, last), ((0,), (0,))))


def _step_after_step(seen: Seen):
    def one(sums, at):
        step = jax.tree.map(lambda a: a[None], at)
        d_params, d_xs = unrolls.contract(seen._replace(**step))
        each = trees.floats(seen.params, d_params)
        norms = [trees.norm([d]) for d in each]
        sums = [s + d for s, d in zip(sums, each, strict=True)]
        return sums, (jax.tree.map(lambda a: a[0], d_xs), norms)

    along = {
        name: getattr(seen, name) for name in ("xs", "carries", "coeffs", "deltas")
    }
    first = jax.tree.map(lambda a: a[:1], along)
    shapes = jax.eval_shape(lambda at: unrolls.contract(seen._replace(**at))[0], first)
    zeros = [jnp.zeros(a.shape, a.dtype) for a in trees.floats(seen.params, shapes)]
    sums, (d_xs, norms) = lax.scan(one, zeros, along)
    shown = states_of(seen), trees.fill(seen.params, norms)
    return (trees.fill(seen.params, sums), d_xs), shown


def watched(
    model: Layer | Cell, objective: Objective, params, batch: Batch, carry, chunk, watch
):
    """`(loss, Pulled)` of the mean loss over the real steps of a batch."""
    layer = layers.with_loss(layers.lift(model, "model"), objective)
    carry = estimators.init_carry(model, params, batch) if carry is None else carry
    (last, losses), back = unrolls.pullback(
        layer, params, carry, batch.inputs, batch.side,
        watch=watch, chunk=chunk, context=batch.context,
    )  # fmt: skip
    mean = functools.partial(estimators.per_real_step, batch=batch)
    none = jax.tree.map(jnp.zeros_like, last)
    return mean(losses.sum()), back(none, mean(jnp.ones_like(losses)))


@functools.partial(jax.jit, static_argnames=("model", "objective", "chunk"))
def gradient_flow(
    model: Layer | Cell,
    objective: Objective,
    params: PyTree,
    batch: Batch,
    *,
    carry: PyTree = None,
    chunk: int | None = None,
) -> Flow:
    """dL/ds_t for all t, of every recurrent layer and example, from one backward pass.

    Args:
      model: a cell, or a layer with recurrent parts, in stacks, residuals or under `remat`.
      objective: see `bptt_jax.objectives`.
      params: of the model.
      batch: inputs `[T, B, ...]` with their side.
      carry: the state before the first step; None: the model's initial one.
      chunk: as of `unrolls.bptt`.

    Returns:
      A `Flow`; `state_norms(flow.d_states[0])` are norms `[T, B]`.

    Cost: the gradient's, and the array that is returned.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, diagnose, models, tasks
    >>> task, model = tasks.adding(batch=4, T=20), models.features((cells.gru(2, 8),), 1, 8)
    >>> batch = task.train.batch(jnp.int32(0), jax.random.key(1))
    >>> flow = diagnose.gradient_flow(model, task.objective,
    ...                               model.init(jax.random.key(0)), batch)
    >>> diagnose.state_norms(flow.d_states[0]).shape
    (20, 4)
    """
    loss, back = watched(model, objective, params, batch, carry, chunk, see_states)
    return Flow(loss, back.d_params, back.seen)


@functools.partial(jax.jit, static_argnames=("model", "objective", "chunk"))
def contributions(
    model: Layer | Cell,
    objective: Objective,
    params: PyTree,
    batch: Batch,
    *,
    carry: PyTree = None,
    chunk: int | None = None,
) -> Contributions:
    """`gradient_flow`, and how much each step adds to each weight's gradient.

    Args: as of `gradient_flow`.

    Cost: `gradient_flow`'s, and for each step the products of all pairs of examples, or
    that of the weight where it is smaller; of cells whose factors are not known
    (`cells.from_step`) the sum over steps one after another, and a
    pass over the weights for each.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, diagnose, models, tasks
    >>> task, model = tasks.adding(batch=4, T=20), models.features((cells.gru(2, 8),), 1, 8)
    >>> batch = task.train.batch(jnp.int32(0), jax.random.key(1))
    >>> found = diagnose.contributions(model, task.objective,
    ...                                model.init(jax.random.key(0)), batch)
    >>> found.norms[0]["w_h"].shape
    (20,)
    """
    at = model, objective, params, batch, carry, chunk
    loss, back = watched(*at, _see_contributions)
    states, norms = zip(*back.seen, strict=True)
    return Contributions(loss, back.d_params, list(states), list(norms))


def state_norms(d_state: PyTree) -> Array:
    """Norms over the units of all leaves, in at least float32: `[..., H]` -> `[...]`.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import diagnose
    >>> float(diagnose.state_norms((jnp.array([3.0, 0.0]), jnp.array([4.0]))))
    5.0
    """
    return trees.norm(_floating(d_state), -1)


def squares(d_state: PyTree) -> Array:
    """Their squares, for a ratio of them; these may leave the range."""
    wide = [trees.widened(a) for a in _floating(d_state)]
    return functools.reduce(jnp.add, [trees.squares(a).sum(-1) for a in wide])


def _floating(d_state: PyTree) -> list:
    return [a for a in jax.tree.leaves(d_state) if trees.is_floating(a)]
