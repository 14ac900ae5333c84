"""How many states to store within a number of bytes, and how much else.

XLA's temporary memory of the gradient of `checkpointed`, with n stretches of K steps, of
which j are kept, and m slots, is

    (1)  bytes(n, K, m, j) = c m + s j + b n + max(b n, a(K))

c: one carry, b: the outputs of a stretch, s: all that is kept of one (carry, outputs,
residuals); they are known from shapes. The outputs exist while their cotangents, of the
same size, are made, and these while stretches are pulled back, one of which needs a(K):
that is read off a program with few stretches and slots, which is compiled and not run.
Where all stretches are kept it is `bptt` that runs; its bytes are read off its program.

A byte does more in a slot than among what is kept until all states have a slot, so j is
above 0 only where m = n - j. Among lengths of a stretch the plan takes that whose
predicted time

    (2)  (evaluations(n - j, m) + 1 + j + BACKWARD n) (K + OVERHEAD)

is least. Where a layer keeps gates that it does not have to (`layers.by_shapes`), both it
and the same layer that keeps its states alone are looked at; BACKWARD is less of the first.
"""

import functools
import math
from typing import NamedTuple

import jax

from bptt_jax import _pytrees as trees
from bptt_jax import layers
from bptt_jax._chunks import default_chunk, near_divisor
from bptt_jax._factory import is_whole, plain
from bptt_jax.types import Cell, Layer, PyTree, Save, Side
from bptt_jax.unrolls import _schedule as schedule
from bptt_jax.unrolls._bptt import bptt, check_chunk
from bptt_jax.unrolls._door import arrays, lift
from bptt_jax.unrolls._revolve import default_stretch, revolve

PROBE = 4, 2  # stretches and slots of the program that is compiled
BACKWARD = 2.5  # time of a backward pass over that of a forward pass
WITH_GATES = 2.0  # the same where gates are kept (`benchmarks/results/against.json`)
OVERHEAD = 2.0  # steps that the beginning and end of a stretch are worth


class Plan(NamedTuple):
    """How `checkpointed` runs within a number of bytes.

    chunk: steps of a stretch, K.
    slots: states that are stored, m.
    kept: stretches of which all that their backward needs is stored, j; all of them
        where plain `bptt` fits.
    stretches: n, without a shorter one.
    evaluations: stretches run forward, in the forward and the backward pass together.
    recomputation: evaluations over stretches, from 1 where all are kept; near 2 where
        none is, since a stretch then runs again before it is pulled back.
    bytes: predicted temporary memory of the gradient, outputs and their cotangents
        included, inputs and gradients not.
    save: what recurrent parts are to keep that do not say it themselves, `layers.STATES`
        (`layers.with_options(layer, save=…)` says it); None: what the layer keeps as it is.
    """

    chunk: int
    slots: int
    kept: int
    stretches: int
    evaluations: int
    recomputation: float
    bytes: int
    save: Save | None = None

    def __str__(self) -> str:
        rows = {
            "steps of a stretch": f"{self.chunk:,}",
            "stretches": f"{self.stretches:,}",
            "states stored": f"{self.slots:,}",
            "stretches kept whole": f"{self.kept:,}",
            "stretches run forward": f"{self.evaluations:,}",
            "recomputation": f"{self.recomputation:.2f}",
            "kept of a step": "as the layer says"
            if self.save is None
            else f"{self.save}",
            "predicted memory": _bytes(self.bytes),
        }
        left, right = max(map(len, rows)), max(map(len, rows.values()))
        return "\n".join(f"{k:<{left}}  {v:>{right}}" for k, v in rows.items())


def _bytes(n: float) -> str:
    power = min(3, int(math.log(max(n, 1), 1000)))
    return f"{n / 1000**power:.1f} {('B', 'kB', 'MB', 'GB')[power]}"


def plan(
    layer: Layer | Cell,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    side: Side = Side(),
    *,
    memory: int,
    chunk: int | None = None,
    length: int | None = None,
    context: PyTree = (),
) -> Plan:
    """The fastest way of `checkpointed` within `memory` bytes.

    Args:
      layer, params, carry, xs, side, length, context: as of `checkpointed`; arrays or
        `jax.ShapeDtypeStruct`s.
      memory: bytes of temporary memory that the gradient may take, see `Plan.bytes`.
      chunk: steps of a stretch; None: chosen.

    Returns:
      A `Plan`; printed it is a table.

    Raises:
      ValueError: `memory` is less than any plan takes; the message names the least.
      NotImplementedError: the backend gives no account of memory.

    Cost: up to five small programs are compiled, once for these shapes; ten where gates
    may be kept.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, unrolls
    >>> cell = cells.lstm(3, 8)
    >>> params = cell.init(jax.random.key(0))
    >>> found = unrolls.plan(cell, params, cell.init_carry(params, (2,)),
    ...                      jax.ShapeDtypeStruct((1000, 2, 3), jnp.float32),
    ...                      memory=300_000)
    >>> found.bytes <= 300_000
    True
    """
    if not is_whole(memory) or memory < 1:
        raise ValueError(f"memory: expected a number of bytes, got {memory!r}")
    memory, chunk = plain(memory), check_chunk(chunk)
    layer = lift(layer)
    params = layers.with_context(params, context)
    at = jax.eval_shape(lambda *given: arrays(*given, length), params, carry, xs, side)
    T, (leaves, structure) = trees.length(at[2]), jax.tree.flatten(at)
    units = max((math.prod(a.shape) for a in jax.tree.leaves(at[1])), default=1)
    lengths = [min(chunk, T)] if chunk else _lengths(T, units)
    K = min(chunk or default_chunk(T, units), T)
    ways = []
    variants = _variants(layer, structure, tuple(leaves))
    for one, save in variants:
        of = functools.partial(_fixed, one, structure, tuple(leaves))
        some = [_within(of(k), T // k, k, memory) for k in lengths]
        n, by_bptt = T // K, _of_bptt(one, structure, tuple(leaves), K)
        some.append(Plan(K, 0, n, n, n, 1.0, by_bptt))
        ways += [way._replace(save=save) for way in some]
    found = [way for way in ways if way.bytes <= memory]
    if not found:
        least = min(way.bytes for way in ways)
        raise ValueError(f"memory: expected at least {least} bytes, got {memory}")
    return min(found, key=functools.partial(_time, keeps=len(variants) > 1))


def _lengths(T: int, units: int) -> list[int]:
    """Lengths of a stretch to choose from: that of `checkpointed`, and shorter ones."""
    longest = default_stretch(T, units)
    return sorted({near_divisor(T, max(1, longest // 4**k)) for k in range(4)})


def _variants(layer: Layer, structure, leaves: tuple) -> list:
    """`(layer, save)`: as it is; and with states alone, where that is another."""
    lean = layers.settled(layer, layers.STATES)
    params, carry, *along = structure.unflatten(leaves)
    as_it_is, least = (
        _size(jax.eval_shape(one.fwd, params, carry, *_first_steps(along, 1)))
        for one in (layer, lean)
    )
    return (
        [(layer, None), (lean, layers.STATES)] if least < as_it_is else [(layer, None)]
    )


class _Fixed(NamedTuple):
    """a, b, c and s of (1)."""

    stretch: int
    outputs: int
    carry: int
    kept: int


@functools.lru_cache(maxsize=256)
def _fixed(layer: Layer, structure, leaves: tuple, K: int) -> _Fixed:
    n, m = PROBE
    params, carry, *along = structure.unflatten(leaves)
    run = functools.partial(revolve, chunk=K, slots=m)
    temp = _temp(run, layer, params, carry, *_first_steps(along, n * K))
    _, ys, residuals = jax.eval_shape(layer.fwd, params, carry, *_first_steps(along, K))
    c, b, s = (_size(tree) for tree in (carry, ys, (carry, ys, residuals)))
    return _Fixed(temp - 2 * n * b - m * c, b, c, s)


@functools.lru_cache(maxsize=256)
def _of_bptt(layer: Layer, structure, leaves: tuple, K: int) -> int:
    run = functools.partial(bptt, chunk=K)
    return _temp(run, layer, *structure.unflatten(leaves))


def _temp(unroll, layer: Layer, params, carry, xs, side) -> int:
    """XLA's temporary memory for a gradient through outputs and final carry."""

    def gradient(params, carry, xs, side):
        out, back = trees.pullback(
            lambda *at: unroll(layer, *at, side), params, carry, xs
        )
        return back(jax.tree.map(lambda a: a + a, out))

    program = jax.jit(gradient).lower(params, carry, xs, side).compile()
    account = program.memory_analysis()
    if account is None:
        raise NotImplementedError(
            "plan: this backend does not say what memory it takes"
        )
    return account.temp_size_in_bytes


def _first_steps(tree: PyTree, n: int) -> PyTree:
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((n, *a.shape[1:]), a.dtype), tree
    )


def _size(tree: PyTree) -> int:
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def _within(of: _Fixed, n: int, K: int, memory: int) -> Plan:
    """With as many slots as there is memory for, at least one, and then as much kept."""
    outputs = of.outputs * n
    without = outputs + max(outputs, of.stretch)
    m = min(n, max(1, (memory - without) // max(1, of.carry)))
    more = memory - without - n * of.carry  # (1), with m = n - j
    j = min(n - 1, max(0, more // max(1, of.kept - of.carry)))
    m = min(m, n - j)
    runs = schedule.evaluations(n - j, m) + 1 + j
    return Plan(K, m, j, n, runs, runs / n, without + m * of.carry + j * of.kept)


def _time(plan: Plan, keeps: bool) -> float:
    """(2)"""
    backward = WITH_GATES if keeps and plan.save is None else BACKWARD
    runs = plan.evaluations + backward * plan.stretches
    return runs * (plan.chunk + OVERHEAD)
