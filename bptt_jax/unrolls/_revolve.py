"""Backpropagation through time from a few stored states.

Time is cut into n stretches, as in `_bptt`; of the states before them, c_0 … c_{n-1},
at most m are stored at any time, in slots that a stack counts:

    forward     every stretch once; c_i is stored where the schedule says
    backward    for i = n-1 … 0:
      (1)  slots of states after c_i are given back
      (2)  from the last state that is stored the stretches up to i run again, and
           states on the way are stored where the schedule says
      (3)  c_{i+1}, ys_i, residuals_i = layer.fwd(θ, c_i, xs_i)
      (4)  dθ_i, d c_i, d xs_i, d targets_i
               = layer.bwd(θ, c_i, xs_i, …; d c_{i+1}, d ys_i)

A row beyond the slots takes the states that are not stored, so that no branch holds the
slots (XLA would keep them twice); what the forward pass leaves there is c_{n-1}.

Of stretches after these n, `kept` many and a shorter last one, the forward pass keeps
c_i, ys_i and residuals_i, as `bptt` does of all: they are pulled back first, by (4) alone.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax import _shardings as shardings
from bptt_jax._chunks import CACHED, SHORTEST, near_divisor, units
from bptt_jax.types import PyTree
from bptt_jax.unrolls import _schedule as schedule
from bptt_jax.unrolls._door import known_length, of_targets, unroll
from bptt_jax.unrolls._forward_only import forward_only

HOST, DEVICE = jax.memory.Space.Host, jax.memory.Space.Device
NEVER = -1
TWICE = (
    "unrolls.checkpointed: its gradient has no gradient in reverse mode; take forward over "
    "reverse (jax.jvp of jax.grad, jax.jacfwd of jax.grad, jax.hessian), or "
    "unrolls.both_modes, which has both"
)
LIGHT = 4  # states that weigh little beside a step of the stretch that is pulled back


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


def _first(betas, carry: PyTree, end: int, offload: bool) -> _Slots:
    """c_0 in the first slot."""
    m = betas.shape[0] - 1
    rows = jax.tree.map(lambda a: jnp.broadcast_to(a, (m + 1, *a.shape)), carry)
    rows = jax.device_put(rows, HOST) if offload else rows
    slots = _Slots(rows, jnp.zeros(m, jnp.int32), jnp.int32(0), jnp.int32(NEVER))
    return _look_ahead(betas, slots, end)


def _look_ahead(betas, slots: _Slots, end: int | Array) -> _Slots:
    """Which state is stored next, to pull back the stretches from the top to `end`."""
    begin = slots.begins[slots.top]
    t, free = end - begin, betas.shape[0] - 1 - slots.top
    y = schedule.split(betas, jnp.maximum(t, 2), jnp.maximum(free, 2))
    return slots._replace(wanted=jnp.where((t > 1) & (free > 1), begin + y, NEVER))


def _read(slots: _Slots, row: Array, offload: bool) -> PyTree:
    carry = jax.tree.map(
        lambda a: lax.dynamic_index_in_dim(a, row, 0, keepdims=False), slots.rows
    )
    return jax.device_put(carry, DEVICE) if offload else carry


def _offer(betas, slots: _Slots, carry: PyTree, i: Array, end, offload: bool) -> _Slots:
    """Stores c_i if it is wanted, otherwise in the row beyond."""
    carry = jax.device_put(carry, HOST) if offload else carry
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


def default_slots(stretches: int, steps: int = 1) -> int:
    """The states that `checkpointed` stores where it is not told how many.

    All of them where they weigh little beside what one stretch needs to be pulled back;
    otherwise as many that no stretch runs more than three times: about √(2n).

    Args:
      stretches: n.
      steps: of a stretch, K.

    >>> default_slots(40, steps=25), default_slots(1000)
    (40, 44)
    """
    if stretches <= LIGHT * steps:
        return stretches
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


class _Cut(NamedTuple):
    """How time is cut.

    chunk: steps of a stretch, K.
    slots: states stored at a time, m.
    again: stretches that run again, n.
    kept: stretches after them that do not.
    done: steps before the shorter last stretch; T if there is none.
    """

    chunk: int
    slots: int
    again: int
    kept: int
    done: int


def _cut(T: int, carry: PyTree, chunk, slots, kept: int) -> _Cut:
    K = min(T, chunk or default_stretch(T, units(carry)))
    kept = min(kept, T // K - 1)
    n = T // K - kept
    return _Cut(K, min(slots or default_slots(n, K), n), n, kept, T - T % K)


def _forward(layer, params, carry, xs, side, *, chunk, slots, kept=0, offload=False):
    T = known_length(xs)
    K, m, n, more, done = _cut(T, carry, chunk, slots, kept)
    betas = schedule.table(n, m)

    def run(carry, ys, i):
        at = trees.steps_from((xs, side), i * K, K)
        carry, part, residuals = layer.fwd(params, carry, *at)
        return carry, trees.write_steps(ys, i * K, part), (part, residuals)

    def stretch(i, state):
        carry, slots, ys = state
        slots = _offer(betas, slots, carry, i, n, offload)
        carry, ys, _ = run(carry, ys, i)
        return carry, slots, ys

    def keep(state, i):
        before, ys = state
        carry, ys, of_stretch = run(before, ys, i)
        return (carry, ys), (before, *of_stretch)

    ys = _no_outputs(layer, params, carry, *trees.cut((xs, side), 0, K), T)
    state = carry, _first(betas, carry, n, offload), ys
    carry, stored, ys = lax.fori_loop(np.int32(0), np.int32(n), stretch, state)
    whole = rest = None
    if more:
        indices = jnp.arange(n, n + more, dtype=jnp.int32)
        (carry, ys), whole = lax.scan(keep, (carry, ys), indices)
    if done < T:
        begin, at = carry, trees.cut((xs, side), done, T)
        carry, part, residuals = layer.fwd(params, begin, *at)
        ys = trees.write_steps(ys, done, part)
        rest = begin, part, residuals
    return (carry, ys), (params, carry, xs, side, stored, whole, rest)


def _no_outputs(layer, params, carry, xs, side, T: int) -> PyTree:
    """Zeros of the shape of the outputs, which stretches are written into."""
    shapes = jax.eval_shape(layer.fwd, params, carry, xs, side)[1]
    # a zero that varies over the same axes of a mesh as all else
    zero = jnp.zeros_like(jax.tree.leaves((carry, xs))[0]).sum()
    zeros = jax.tree.map(
        lambda s: jnp.broadcast_to(trees.cast(zero, s.dtype), (T, *s.shape[1:])), shapes
    )
    return shardings.like(shapes, zeros)


def _backward(layer, residuals, d_carry, d_ys, *, chunk, slots, kept=0, offload=False):
    params, last, xs, side, stored, whole, rest = residuals
    T = trees.length(xs)
    K, _, n, more, done = _cut(T, last, chunk, slots, kept)

    def pull(acc, start, steps, carry, ys, residuals):  # (4)
        d_carry, total, along = acc
        *at, d_out = trees.steps_from((xs, side, d_ys), start, steps)
        d_params, d_carry, *d_at = layer.bwd(
            params, carry, *at, ys, residuals, trees.fill(carry, d_carry), d_out
        )
        total = total.add(trees.floats(params, d_params))
        d_at = trees.floats(at[0], d_at[0]), of_targets(at[1], d_at[1])
        along = trees.write_steps(along, start, d_at)
        return trees.floats(carry, d_carry), total, along

    def pull_kept(acc, at):
        i, of_stretch = at
        return pull(acc, i * K, K, *of_stretch), None

    def turn(turned, state):
        (acc, slots), i = state, n - 1 - turned
        carry, slots = _reach(layer, params, xs, side, K, n, slots, i, offload)
        at = trees.steps_from((xs, side), i * K, K)
        _, ys, residuals = layer.fwd(params, carry, *at)  # (3)
        return pull(acc, i * K, K, carry, ys, residuals), slots

    along = trees.floats(xs, xs), trees.floats(side.targets, side.targets)
    zeros = trees.Sum.zeros(params), jax.tree.map(jnp.zeros_like, along)
    acc = trees.floats(last, d_carry), *zeros
    if rest is not None:
        acc = pull(acc, done, T - done, *rest)
    if more:
        indices = jnp.arange(n, n + more, dtype=jnp.int32)
        acc, _ = lax.scan(pull_kept, acc, (indices, whole), reverse=True)
    acc, _ = lax.fori_loop(np.int32(0), np.int32(n), turn, (acc, stored))
    d_carry, total, along = acc
    return forward_only((total.done(params), d_carry, *along), TWICE)


def _reach(layer, params, xs, side, K: int, n: int, slots: _Slots, i, offload):
    """c_i, and the slots with the states on the way to it that are wanted."""
    m = slots.begins.shape[0]
    betas = schedule.table(n, m)
    done_with = slots.begins[slots.top] > i  # (1)
    top = slots.top - done_with.astype(jnp.int32)
    slots = _look_ahead(betas, slots._replace(top=top), i + 1)
    begin = jnp.where(i == n - 1, n - 1, slots.begins[top])
    row = jnp.where(begin == slots.begins[top], top, m)

    def again(j, state):  # (2)
        carry, slots = state
        there = trees.steps_from((xs, side), j * K, K)
        carry = layer.fwd(params, carry, *there)[0]
        return carry, _offer(betas, slots, carry, j + 1, i + 1, offload)

    return lax.fori_loop(begin, i, again, (_read(slots, row, offload), slots))


revolve = unroll(_forward, _backward)
"""`checkpointed` with its options as they are."""
