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
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax.types import Cell, Layer, PyTree, Side
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

    def stretch(state, i):
        carry, slots = state
        slots = _offer(betas, slots, carry, i, n)
        at = trees.steps_from((xs, side), i * K, K)
        carry, ys, _ = layer.fwd(params, carry, *at)
        return (carry, slots), ys

    begin = carry, _first(betas, carry, n)
    (carry, stored), ys = lax.scan(stretch, begin, jnp.arange(n, dtype=jnp.int32))
    pieces, rest = [trees.flat(ys)], None
    if done < T:  # the rest is a shorter stretch, pulled back first
        begin = carry
        carry, ys, residuals = layer.fwd(params, begin, *trees.cut((xs, side), done, T))
        pieces.append(ys)
        rest = begin, ys, residuals
    return (carry, trees.join(pieces)), (params, carry, xs, side, stored, rest)


def _backward(layer, residuals, d_carry, d_ys, *, chunk, slots):
    params, last, xs, side, stored, rest = residuals
    T = trees.length(xs)
    K, m = _options(T, last, chunk, slots)
    n, done, pieces = T // K, T - T % K, []
    betas = schedule.table(n, m)
    weights = trees.floats(params, params)
    total = [jnp.zeros_like(p, trees.at_least_float32(p.dtype)) for p in weights]

    def pull(acc, carry, at, ys, residuals, d_ys):  # (4)
        d_carry, total = acc
        d_params, d_carry, d_xs = layer.bwd(
            params, carry, *at, ys, residuals, trees.fill(carry, d_carry), d_ys
        )
        each = trees.floats(params, d_params)
        total = [t + d.astype(t.dtype) for t, d in zip(total, each, strict=True)]
        return (trees.floats(carry, d_carry), total), trees.floats(at[0], d_xs)

    def turn(state, i):
        acc, slots = state
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
        acc, d_xs = pull(acc, carry, at, ys, residuals, d_out)
        return (acc, slots), d_xs

    acc = trees.floats(last, d_carry), total
    if rest is not None:
        at = trees.cut((xs, side), done, T)
        acc, d_xs = pull(acc, rest[0], at, *rest[1:], trees.cut(d_ys, done, T))
        pieces.append(d_xs)
    turns = jnp.arange(n, dtype=jnp.int32)
    ((d_carry, total), _), d_xs = lax.scan(turn, (acc, stored), turns, reverse=True)
    pieces.insert(0, trees.flat(d_xs))
    d_params = [t.astype(p.dtype) for t, p in zip(total, weights, strict=True)]
    return d_params, d_carry, trees.join(pieces)


_checkpointed = unroll(_forward, _backward)


def checkpointed(
    layer: Layer | Cell,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    side: Side = Side(),
    *,
    slots: int | None = None,
    chunk: int | None = None,
    length: int | None = None,
) -> tuple[PyTree, PyTree]:
    """Runs a layer through time; its gradient is exact, from at most `slots` states.

    The same values and the same gradient as `unrolls.bptt`, with less memory and more
    time: stretches run forward again, by the schedule that needs the fewest of such
    runs. With n = T/K stretches and m slots they are run (r + 1) n - C(m + r, r - 1) + 1
    times in all, r the least with C(m + r, m) >= n; the backward itself is as in `bptt`.

    Works under `jit`, `grad`, `vmap`, `shard_map`, inside an outer `scan`, and with
    `jax.hessian` (forward over reverse). Reverse over reverse (`jax.grad` of a gradient
    of it) raises JAX's ValueError about loops with dynamic bounds, `jax.jvp` JAX's
    TypeError about custom_vjp: take `unrolls.bptt` or `unrolls.scan` there.

    Args:
      layer: a cell or a layer. Outputs of all steps weigh more than the states that are
        saved: fold the loss into the layer (`layers.with_loss`).
      params: its parameters.
      carry: the state before the first step, leaves `[..., H]`.
      xs: inputs, leaves `[T, ..., I]`; None: no inputs, with `length`.
      side: masks, resets, keys, targets; see `Side`.
      slots: states that are stored, m, the first one included; None: as many that no
        stretch runs more than three times (`≈ √(2n)`).
      chunk: steps of a stretch, K; None: about √T.
      length: the number of steps, where `xs` is None.

    Returns:
      The state after the last step, and the outputs `[T, ..., O]`.

    Raises:
      ValueError, TypeError: an argument does not fit; the message names it.

    Cost: memory of m + 1 states, and that of one stretch of `bptt`; time as above.

    Griewank, Walther (2000), "Algorithm 799: revolve"; Gruslys, Munos, Danihelka,
    Lanctot, Graves (2016), "Memory-efficient backpropagation through time", HSM.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import Side, cells, layers, objectives, unrolls
    >>> layer = layers.with_loss(layers.recurrent(cells.lstm(1, 4)),
    ...                          objectives.squared_error)
    >>> params = layer.init(jax.random.key(0))
    >>> def loss(params, xs, targets):
    ...     carry, side = layer.init_carry(params, (2,)), Side(targets=targets)
    ...     return unrolls.checkpointed(layer, params, carry, xs, side, slots=3)[1].mean()
    >>> grads = jax.grad(loss)(params, jnp.ones((500, 2, 1)), jnp.ones((500, 2, 4)))
    """
    for name, value in dict(slots=slots, chunk=chunk).items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(
                f"{name}: expected a number of at least 1, or None, got {value!r}"
            )
    return _checkpointed(
        layer, params, carry, xs, side, length=length, chunk=chunk, slots=slots
    )
