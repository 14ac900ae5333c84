"""BPTT with a derivative in both directions: forward mode beside the hand-derived backward.

Write the backward over a stretch, `layer.bwd`, as Jᵀ: it takes (d c_{i+1}, d ys_i) to
(dθ, d c_i, d xs_i, d targets_i), linearly. Its transpose J takes tangents forward in time,

    (1)  ċ_{i+1}, ẏs_i = J_i (θ̇, ċ_i, ẋs_i, targetṡ_i)              i = 1 … T/K

so the one derivation serves both. JAX is given (1) as a linear map of the tangents whose
transpose is the backward of `_bptt`, and takes whichever it needs.

For second derivatives JAX differentiates all of this; by `jax.checkpoint` each stretch is
then run again, so that of one stretch alone it keeps what that takes.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from bptt_jax import _pytrees as trees
from bptt_jax import layers
from bptt_jax.types import Cell, Layer, PyTree, Sections, Side
from bptt_jax.unrolls._bptt import (
    backward,
    check_chunk,
    forward,
)
from bptt_jax.unrolls._door import door, of_targets
from bptt_jax.unrolls._linear import Map, linear
from bptt_jax.unrolls._through import through


@functools.cache
def _run_again(layer: Layer) -> Layer:
    """The layer whose passes, where JAX differentiates them, are not stored but run twice."""
    again = functools.partial(jax.checkpoint, prevent_cse=False)
    return layer._replace(
        fwd=again(layer.fwd), bwd=again(layer.bwd), only_recurrent=False
    )


def _split(params, carry, each: list) -> tuple[list, list, list]:
    """A list over all floating leaves: of params, of carry, of what lies along time."""
    n = len(trees.floats(params, params))
    m = n + len(trees.floats(carry, carry))
    return each[:n], each[n:m], each[m:]


def _only(wanted: list, flat: list) -> list:
    return [a for a, w in zip(flat, wanted, strict=True) if w]


def _push(layer, wanted, residuals, tangents, *, chunk):
    """(1): tangents of the final carry and of the outputs, lists of floating leaves."""
    del chunk  # the stretches are those of the forward pass
    params, first, xs, side, ys, kept = residuals
    T, K = trees.length(xs), kept.K
    rest, stored, pieces = T % K, list(kept.stretches), []
    want_params, want_carry, want_along = _split(params, first, list(wanted))
    each = iter(tangents)
    d_params = [next(each) for w in want_params if w]
    d_carry = [
        next(each) if w else jnp.zeros_like(c)
        for w, c in zip(want_carry, trees.floats(first, first), strict=True)
    ]
    d_along = list(each)  # of xs and targets

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def stretch(d_carry, at):
        xs, side, ys, (carry, residuals), d_along = at

        def back(d_carry, d_ys):
            d_params, d_carry, d_xs, d_targets = layer.bwd(
                params, carry, xs, side, ys, residuals,
                trees.fill(carry, d_carry), trees.fill(ys, d_ys),
            )  # fmt: skip
            along = [*trees.floats(xs, d_xs), *of_targets(side, d_targets)]
            return (
                _only(want_params, trees.floats(params, d_params)),
                trees.floats(carry, d_carry),
                _only(want_along, along),
            )

        zeros = jax.tree.map(
            jnp.zeros_like, (trees.floats(carry, carry), trees.floats(ys, ys))
        )
        like, transposed = jax.vjp(back, *zeros)
        return transposed(
            jax.tree.map(
                lambda d, a: trees.cast(d, a.dtype), (d_params, d_carry, d_along), like
            )
        )

    if rest:
        at = trees.cut((xs, side, ys), 0, rest)
        d_at = trees.cut(d_along, 0, rest)
        d_carry, d_ys = stretch(d_carry, (*at, stored.pop(0), d_at))
        pieces.append(d_ys)
    if rest < T:
        at = trees.fold(trees.cut((xs, side, ys, d_along), rest, T), T // K)
        d_carry, d_ys = lax.scan(stretch, d_carry, (*at[:3], stored.pop(), at[3]))
        pieces.append(trees.flat(d_ys))
    return d_carry, trees.join(pieces)


class _Static(NamedTuple):
    """What both directions know beside arrays; `structure` is that of the residuals."""

    layer: Layer
    options: tuple
    structure: Any
    wanted: tuple[bool, ...]


@dataclasses.dataclass(frozen=True)  # tuples of two classes would be equal
class _Forward:
    at: _Static

    def __call__(self, residuals, tangents):
        layer, options, structure, wanted = self.at
        residuals = structure.unflatten(residuals)
        d_carry, d_ys = _push(layer, wanted, residuals, tangents, **dict(options))
        return [*d_carry, *d_ys]


@dataclasses.dataclass(frozen=True)
class _Reverse:
    at: _Static

    def __call__(self, residuals, cotangents):
        layer, options, structure, wanted = self.at
        residuals = structure.unflatten(residuals)
        _, carry, _, _, ys, _ = residuals
        n = len(trees.floats(carry, carry))
        d_out = trees.fill(carry, cotangents[:n]), trees.fill(ys, cotangents[n:])
        parts = backward(_run_again(layer), residuals, *d_out, **dict(options))[:4]
        return _only(list(wanted), [d for part in parts for d in part])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _core(layer, options, spec, floats, others):
    return forward(layer, *spec.merge(floats, others), **dict(options))[0]


@functools.partial(_core.defjvp, symbolic_zeros=True)
def _core_jvp(layer, options, spec, primals, tangents):
    """Only tangents that are there enter, so nothing is computed for the others."""
    wanted = tuple(not isinstance(d, SymbolicZero) for d in tangents[0])
    out, residuals = forward(_run_again(layer), *spec.merge(*primals), **dict(options))
    flat, structure = jax.tree.flatten(residuals)
    at = _Static(layer, options, structure, wanted)
    both_ways = Map(_Forward(at), _Reverse(at))
    d_out = linear(
        both_ways, flat, _only(list(wanted), tangents[0]), trees.floats(out, out)
    )
    return out, trees.with_float0(out, trees.fill(out, d_out))


_both_modes = door(_core)


def both_modes(
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
    """Runs a layer through time; has forward mode beside the hand-derived reverse mode.

    The same values and the same gradient as `unrolls.bptt`, from the same program in
    reverse mode, and forward mode beside it: tangents go through time by the transpose of
    `layer.bwd`, as a loop in Python

        for i in range(0, T, K):
            d_carry, d_ys[i:i+K] = transpose(layer.bwd)(
                d_params, d_carry, d_xs[i:i+K], d_targets[i:i+K])

    Nothing is computed for arguments without a tangent.

    Works under `jit`, `grad`, `jvp`, `linearize`, `jacfwd`, `jacrev`, `hessian` and
    whatever is composed of them (`jvp` of `grad`, `grad` of `jvp`, `grad` of `grad`),
    `vmap` (but for steps that name the mapped axis, `lax.pmean`: take `scan`),
    `jax.checkpoint`, `shard_map`, inside an outer `scan`. An edit of the cotangent
    of the state (`layers.recurrent`'s `on_d_carry`) that is linear, a gain or a detached
    state, acts in both directions; of another, such as clipping, forward mode has the
    derivative at a cotangent of zero.

    Args:
      layer: a cell, a layer, or `models.sections`.
      params: its parameters; leaves that are not floating are left alone.
      carry: the state before the first step, leaves `[..., H]`.
      xs: inputs, leaves `[T, ..., I]`, T of at least 1; None: no inputs, with `length`.
      side: masks, resets, keys, targets; see `Side`.
      chunk: steps of a stretch, K; None: `default_chunk`.
      length: the number of steps, where `xs` is None.
      context: as of `bptt`.

    Returns:
      The state after the last step, and the outputs `[T, ..., O]`.

    Raises:
      ValueError, TypeError: an argument does not fit; the message names it.

    Cost: a gradient takes the time and the memory of `unrolls.bptt`; a tangent one more
    forward pass and about a backward's memory, O(T·B·H), since the linear map is made from
    what a gradient stores (for one `jvp` alone `unrolls.scan` needs only the outputs). A
    product of the Hessian with a vector takes least as `jvp` of `grad`: about twice a
    gradient. Where the outer derivative is in reverse mode (`grad` of `jvp`, `grad` of
    `grad`), stretches run again. Figures: `benchmarks/forward_mode.py`; why it is built
    so: decision 0009.

    Pearlmutter (1994), "Fast exact multiplication by the Hessian".

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, unrolls
    >>> cell = cells.lstm(3, 8)
    >>> params = cell.init(jax.random.key(0))
    >>> def loss(params):
    ...     carry = cell.init_carry(params, (2,))
    ...     return jnp.mean(unrolls.both_modes(cell, params, carry, jnp.ones((50, 2, 3)))[1])
    >>> value, slope = jax.jvp(loss, (params,), (params,))
    >>> grads, product = jax.jvp(jax.grad(loss), (params,), (params,))
    >>> product["w_h"].shape
    (8, 32)
    """
    chunk = check_chunk(chunk)
    if isinstance(layer, Sections):
        run = functools.partial(both_modes, chunk=chunk)
        params = layers.with_context(params, context)
        return through(run, layer, params, carry, xs, side, length)[0]
    return _both_modes(
        layer, params, carry, xs, side, length=length, context=context, chunk=chunk
    )
