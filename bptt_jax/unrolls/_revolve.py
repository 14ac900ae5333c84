"""Backpropagation through time from a few stored states.

Time is cut into n stretches, as in `_bptt`; of the states before them, c_0 … c_{n-1},
at most m are stored at any time, in slots that a stack counts:

    forward     every stretch once; c_i is stored where the schedule says
    backward    for i = n-1 … 0:
      (1)  slots of states after c_i are given back
      (2)  from the last state that is stored the stretches up to i run again, and
           states on the way are stored where the schedule says
      (3)  c_{i+1}, ys_i, residuals_i = layer.fwd(θ, c_i, xs_i)
      (4)  dθ_i, d c_i, d xs_i = layer.bwd(θ, c_i, xs_i, …; d c_{i+1}, d ys_i)

A row beyond the slots takes the states that are not stored, so that no branch holds the
slots (XLA would keep them twice); what the forward pass leaves there is c_{n-1}.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax.types import PyTree
from bptt_jax.unrolls import _schedule as schedule
from bptt_jax.unrolls._bptt import CACHED, SHORTEST, near_divisor
from bptt_jax.unrolls._door import unroll

NEVER = -1


class _Slots(NamedTuple):
    """A stack of states.

    rows: leaves `[m + 1, ...]`, the last row for states that are not stored.
    begins: int `[m]`, of each slot the i of its c_i.
    top: int, the last slot in use.
    wanted: int, the i of the c_i to be stored next; `NEVER` if there is none.
    """

    rows: PyTree
    begins: Array
    top: Array
    wanted: Array


def _first(betas, carry: PyTree, end: int) -> _Slots:
    """c_0 in the first slot."""
    m = betas.shape[0] - 1
    rows = jax.tree.map(lambda a: jnp.broadcast_to(a, (m + 1, *a.shape)), carry)
    slots = _Slots(rows, jnp.zeros(m, jnp.int32), jnp.int32(0), jnp.int32(NEVER))
    return _look_ahead(betas, slots, end)


def _look_ahead(betas, slots: _Slots, end: int | Array) -> _Slots:
    """Which state is stored next, to pull back the stretches from the top to `end`."""
    begin = slots.begins[slots.top]
    t, free = end - begin, betas.shape[0] - 1 - slots.top
    y = schedule.split(betas, jnp.maximum(t, 2), jnp.maximum(free, 2))
    return slots._replace(wanted=jnp.where((t > 1) & (free > 1), begin + y, NEVER))


def _offer(betas, slots: _Slots, carry: PyTree, i: Array, end: int | Array) -> _Slots:
    """Stores c_i if it is wanted, otherwise in the row beyond."""
    m, hit = slots.begins.shape[0], i == slots.wanted
    top = slots.top + hit.astype(jnp.int32)
    rows = jax.tree.map(
        lambda a, c: lax.dynamic_update_index_in_dim(a, c, jnp.where(hit, top, m), 0),
        slots.rows,
        carry,
    )
    begins = slots.begins.at[top].set(jnp.where(hit, i, slots.begins[top]))
    ahead = _look_ahead(betas, _Slots(rows, begins, top, slots.wanted), end)
    return ahead._replace(wanted=jnp.where(hit, ahead.wanted, slots.wanted))


def default_slots(stretches: int) -> int:
    """As many that no stretch runs more than three times in all: about √(2n).

    >>> default_slots(1000)
    44
    """
    slots = 1
    while math.comb(slots + 2, 2) < stretches:
        slots += 1
    return slots


def default_stretch(T: int, units: int = 1) -> int:
    """The steps of a stretch: about √T, fewer where they would leave the cache.

    Args:
      T: steps of time.
      units: hidden units of all examples together, B·H.

    >>> default_stretch(1_000_000, units=64)
    1000
    """
    wanted = max(SHORTEST, min(math.isqrt(T), CACHED // max(1, units)))
    return near_divisor(T, wanted)


def _options(T: int, carry: PyTree, chunk, slots) -> tuple[int, int]:
    """K and m."""
    units = max((a.size for a in jax.tree.leaves(carry)), default=1)
    K = min(T, chunk or default_stretch(T, units))
    return K, min(slots or default_slots(T // K), T // K)


def _forward(layer, params, carry, xs, side, *, chunk, slots):
    T = trees.length(xs)
    K, m = _options(T, carry, chunk, slots)
    n, done = T // K, T - T % K
    betas = schedule.table(n, m)

    def stretch(i, state):
        carry, slots, ys = state
        slots = _offer(betas, slots, carry, i, n)
        at = trees.steps_from((xs, side), i * K, K)
        carry, part, _ = layer.fwd(params, carry, *at)
        return carry, slots, trees.write_steps(ys, i * K, part)

    ys = _no_outputs(layer, params, carry, *trees.cut((xs, side), 0, K), T)
    state = carry, _first(betas, carry, n), ys
    carry, stored, ys = lax.fori_loop(np.int32(0), np.int32(n), stretch, state)
    rest = None
    if done < T:  # the rest is a shorter stretch, pulled back first
        begin, at = carry, trees.cut((xs, side), done, T)
        carry, part, residuals = layer.fwd(params, begin, *at)
        ys = trees.write_steps(ys, done, part)
        rest = begin, part, residuals
    return (carry, ys), (params, carry, xs, side, stored, rest)


def _no_outputs(layer, params, carry, xs, side, T: int) -> PyTree:
    """Zeros of the shape of the outputs, which stretches are written into."""
    shapes = jax.eval_shape(layer.fwd, params, carry, xs, side)[1]
    # a zero that varies over the same axes of a mesh as all else
    zero = jnp.zeros_like(jax.tree.leaves((carry, xs))[0]).ravel()[0]
    return jax.tree.map(
        lambda s: jnp.broadcast_to(zero.astype(s.dtype), (T, *s.shape[1:])), shapes
    )


def _backward(layer, residuals, d_carry, d_ys, *, chunk, slots):
    params, last, xs, side, stored, rest = residuals
    T = trees.length(xs)
    K, m = _options(T, last, chunk, slots)
    n, done = T // K, T - T % K
    betas = schedule.table(n, m)
    weights = trees.floats(params, params)
    total = [jnp.zeros_like(p, trees.at_least_float32(p.dtype)) for p in weights]

    def pull(acc, start, carry, at, ys, residuals, d_ys):  # (4)
        d_carry, total, d_xs = acc
        d_params, d_carry, d_at = layer.bwd(
            params, carry, *at, ys, residuals, trees.fill(carry, d_carry), d_ys
        )
        each = trees.floats(params, d_params)
        total = [t + d.astype(t.dtype) for t, d in zip(total, each, strict=True)]
        d_xs = trees.write_steps(d_xs, start, trees.floats(at[0], d_at))
        return trees.floats(carry, d_carry), total, d_xs

    def turn(turned, state):
        (acc, slots), i = state, n - 1 - turned
        done_with = slots.begins[slots.top] > i  # (1)
        top = slots.top - done_with.astype(jnp.int32)
        slots = _look_ahead(betas, slots._replace(top=top), i + 1)
        begin = jnp.where(i == n - 1, n - 1, slots.begins[top])
        row = jnp.where(begin == slots.begins[top], top, m)
        carry = jax.tree.map(
            lambda a: lax.dynamic_index_in_dim(a, row, 0, keepdims=False), slots.rows
        )

        def again(j, state):  # (2)
            carry, slots = state
            there = trees.steps_from((xs, side), j * K, K)
            carry = layer.fwd(params, carry, *there)[0]
            return carry, _offer(betas, slots, carry, j + 1, i + 1)

        carry, slots = lax.fori_loop(begin, i, again, (carry, slots))
        *at, d_out = trees.steps_from((xs, side, d_ys), i * K, K)
        _, ys, residuals = layer.fwd(params, carry, *at)  # (3)
        return pull(acc, i * K, carry, at, ys, residuals, d_out), slots

    d_xs = [jnp.zeros_like(a) for a in trees.floats(xs, xs)]
    acc = trees.floats(last, d_carry), total, d_xs
    if rest is not None:
        at = trees.cut((xs, side), done, T)
        acc = pull(acc, done, rest[0], at, *rest[1:], trees.cut(d_ys, done, T))
    acc, _ = lax.fori_loop(np.int32(0), np.int32(n), turn, (acc, stored))
    d_carry, total, d_xs = acc
    d_params = [t.astype(p.dtype) for t, p in zip(total, weights, strict=True)]
    return d_params, d_carry, d_xs


revolve = unroll(_forward, _backward)
"""`checkpointed` with its options as they are."""
