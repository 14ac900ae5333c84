"""Backpropagation through time: the hand-derived backward over stretches of time.

Time is cut into stretches of K steps. With c_i the state before stretch i,

    (1)  c_{i+1}, ys_i, residuals_i = layer.fwd(θ, c_i, xs_i)            i = 1 … T/K
    (2)  dθ_i, d c_i, d xs_i, d targets_i
             = layer.bwd(θ, c_i, xs_i, …; d c_{i+1}, d ys_i)                T/K … 1
    (3)  dL/dθ = Σ_i dθ_i

Within a stretch everything that is parallel in time is done at once, so what it needs
besides the residuals exists for K steps only. Stored for all T: c_i, ys and residuals.
"""

import dataclasses
import functools

import jax
from jax import lax

from bptt_jax import _pytrees as trees
from bptt_jax import layers
from bptt_jax._chunks import default_chunk, units
from bptt_jax._factory import is_whole, plain
from bptt_jax.layers import runs_whole
from bptt_jax.types import Cell, Layer, PyTree, Sections, Side, Watched
from bptt_jax.unrolls._door import known_length, of_targets, unroll
from bptt_jax.unrolls._through import through


def steps_of_a_stretch(chunk: int | None, layer, params, carry, xs, side) -> int:
    """K: what is said, all of T where that is best, or `default_chunk`."""
    if chunk and trees.length(xs) % chunk == 0:  # T = K·n, and n may be a symbol
        return chunk
    T = known_length(xs)
    if chunk:
        return chunk
    whole = runs_whole(layer, params, carry, xs, side)
    return T if whole else default_chunk(T, units(carry))


def check_chunk(chunk: int | None) -> int | None:
    if chunk is not None and (not is_whole(chunk) or chunk < 1):
        raise ValueError(
            f"chunk: expected a number of steps of at least 1, got {chunk!r}"
        )
    return plain(chunk)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stored:
    """What the forward pass leaves: of each kind of stretch the carries before them and the
    residuals; and the steps of a stretch.
    """

    stretches: list
    K: int = dataclasses.field(metadata=dict(static=True))


def forward(layer, params, carry, xs, side, *, chunk):
    """(1), with all that the backward pass needs stored."""
    T, K = trees.length(xs), steps_of_a_stretch(chunk, layer, params, carry, xs, side)
    rest, stored, pieces = T % K, [], []

    def stretch(carry, at):
        after, ys, residuals = layer.fwd(params, carry, *at)
        return after, (ys, (carry, residuals))

    if rest:  # the first stretch is shorter; time is never padded
        carry, (ys, kept) = stretch(carry, trees.cut((xs, side), 0, rest))
        pieces.append(ys)
        stored.append(kept)
    if rest < T:
        at = trees.fold(trees.cut((xs, side), rest, T), T // K)
        carry, (ys, kept) = lax.scan(stretch, carry, at)
        pieces.append(trees.flat(ys))
        stored.append(kept)
    ys = trees.join(pieces)
    return (carry, ys), (params, carry, xs, side, ys, Stored(stored, K))


def backward(layer, residuals, d_carry, d_ys, *, chunk):
    """(2), (3): `(d_params, d_carry, d_xs, d_targets, seen)`; seen: what a watch showed."""
    del chunk  # the stretches are those of the forward pass
    params, last, xs, side, ys, kept = residuals
    T, K = trees.length(xs), kept.K
    rest, stored, pieces = T % K, list(kept.stretches), []
    acc = trees.floats(last, d_carry), trees.Sum.zeros(params)

    def stretch(acc, at):  # (2), (3)
        (d_carry, total), (xs, side, ys, d_ys, (carry, residuals)) = acc, at
        d_params, d_carry, d_xs, d_targets = layer.bwd(
            params, carry, xs, side, ys, residuals, trees.fill(carry, d_carry), d_ys
        )
        d_params, seen = _apart(d_params)
        total = total.add(trees.floats(params, d_params))
        along = trees.floats(xs, d_xs), of_targets(side, d_targets), seen
        return (trees.floats(carry, d_carry), total), along

    if rest < T:
        at = trees.fold(trees.cut((xs, side, ys, d_ys), rest, T), T // K)
        acc, along = lax.scan(stretch, acc, (*at, stored.pop()), reverse=True)
        pieces.append(trees.flat(along))
    if rest:
        at = trees.cut((xs, side, ys, d_ys), 0, rest)
        acc, along = stretch(acc, (*at, stored.pop()))
        pieces.insert(0, along)
    d_carry, total = acc
    return total.done(params), d_carry, *trees.join(pieces)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WatchedPart:
    """What a watched part showed, and where in the parameters it has its own."""

    shown: PyTree
    path: tuple = dataclasses.field(metadata=dict(static=True))


def _apart(d_params: PyTree) -> tuple[PyTree, list[WatchedPart]]:
    """A layer's gradient, and what its watched parts showed."""
    watched = lambda a: isinstance(a, Watched)
    flat, structure = jax.tree_util.tree_flatten_with_path(d_params, is_leaf=watched)
    seen = [WatchedPart(a.shown, path) for path, a in flat if watched(a)]
    each = [a.d_params if watched(a) else a for _, a in flat]
    return structure.unflatten(each), seen


_bptt = unroll(forward, lambda *args, **options: backward(*args, **options)[:4])


def bptt(
    layer: Layer | Cell | Sections,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    side: Side = Side(),
    *,
    chunk: int | None = None,
    length: int | None = None,
    context: PyTree = (),
) -> tuple[PyTree, PyTree]:
    """Runs a layer through time; its gradient is the hand-derived BPTT.

    As a loop in Python, with K = `chunk`:

        for i in range(0, T, K):
            carry, ys[i:i+K], residuals[i] = layer.fwd(params, carry, xs[i:i+K])

    and backward the same loop from the end, with `layer.bwd`. The gradient flows to
    params, to the initial carry, to xs and to the targets and weights of `side`, and is
    exact.

    Works under `jit`, `grad`, `vmap` (over examples and over params), `jax.checkpoint`,
    `shard_map`, inside an outer `scan`, and with `jax.hessian`. Differs from `scan` in
    that forward mode (`jax.jvp`, `jax.jacfwd`, `jax.linearize`) through it raises JAX's
    TypeError ("can't apply forward-mode autodiff (jvp) to a custom_vjp function"): take
    `unrolls.both_modes`. A `jvp` of its gradient works.

    Args:
      layer: a cell, a layer (`layers.stack`, `layers.with_loss`, …), or `models.sections`.
      params: its parameters; leaves that are not floating are left alone.
      carry: the state before the first step, leaves `[..., H]`.
      xs: inputs, leaves `[T, ..., I]`, T of at least 1, any number of batch axes; None:
        no inputs, with `length`.
      side: masks, resets, keys, targets; see `Side`.
      chunk: steps of a stretch, K; None: `default_chunk`, or T where a loop takes no
        memory for more of them (`loops.native`). Any K gives the same gradient to
        rounding; memory has a term that grows with K.
      length: the number of steps, where `xs` is None.
      context: what is constant in time (what was read before, a task's embedding, weights
        that another network made): a tree that stands beside the parameters of each part
        that sees one, `InContext`, with its gradient. Leaves have the batch axes first.

    Returns:
      The state after the last step, and the outputs `[T, ..., O]`.

    Raises:
      ValueError, TypeError: an argument does not fit; the message names the leaf, what
        was expected and what came.

    Cost: time O(T); memory for a gradient O(T·B·H): the states that are no outputs, one
    carry a stretch, and a few dozen floats for each unit and step of one stretch.

    Werbos (1990), "Backpropagation through time: what it does and how to do it".

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, unrolls
    >>> cell = cells.lstm(3, 8)
    >>> params = cell.init(jax.random.key(0))
    >>> def loss(params, xs):
    ...     carry, hs = unrolls.bptt(cell, params, cell.init_carry(params, (2,)), xs)
    ...     return jnp.mean(hs**2)
    >>> grads = jax.grad(loss)(params, jnp.ones((50, 2, 3)))
    >>> grads["w_h"].shape
    (8, 32)
    """
    chunk = check_chunk(chunk)
    if isinstance(layer, Sections):
        run = functools.partial(bptt, chunk=chunk)
        params = layers.with_context(params, context)
        return through(run, layer, params, carry, xs, side, length)[0]
    return _bptt(
        layer, params, carry, xs, side, length=length, context=context, chunk=chunk
    )
