"""How many states to store within a number of bytes.

XLA's temporary memory of the gradient of `checkpointed`, with n stretches of K steps and
m slots, is

    (1)  bytes(n, K, m) = c m + b n + max(b n, a(K))

c: one carry, b: the outputs of a stretch; both are known from shapes. The outputs exist
while their cotangents, of the same size, are made, and these while stretches are pulled
back, one of which needs a(K): that is read off a program with few stretches and slots,
which is compiled and not run. Among lengths of a stretch the plan takes that whose predicted time

    (2)  (evaluations(n, m) + 1 + BACKWARD n) (K + OVERHEAD)

is least.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax.types import Cell, Layer, PyTree, Side
from bptt_jax.unrolls import _schedule as schedule
from bptt_jax.unrolls._bptt import near_divisor
from bptt_jax.unrolls._door import lift
from bptt_jax.unrolls._revolve import default_stretch, revolve

PROBE = 4, 2  # stretches and slots of the program that is compiled
BACKWARD = 2.5  # time of a backward pass over that of a forward pass
OVERHEAD = 2.0  # steps that the beginning and end of a stretch are worth


class Plan(NamedTuple):
    """How `checkpointed` runs within a number of bytes.

    chunk: steps of a stretch, K.
    slots: states that are stored, m.
    stretches: n, without a shorter last one.
    evaluations: stretches run forward, in the forward and the backward pass together.
    recomputation: evaluations over stretches; near 2 at least, since a stretch runs
        again before it is pulled back.
    bytes: predicted temporary memory of the gradient, outputs and their cotangents
        included, inputs and gradients not.
    """

    chunk: int
    slots: int
    stretches: int
    evaluations: int
    recomputation: float
    bytes: int

    def __str__(self) -> str:
        rows = {
            "steps of a stretch": f"{self.chunk:,}",
            "stretches": f"{self.stretches:,}",
            "states stored": f"{self.slots:,}",
            "stretches run forward": f"{self.evaluations:,}",
            "recomputation": f"{self.recomputation:.2f}",
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
) -> Plan:
    """The fastest way of `checkpointed` within `memory` bytes.

    Args:
      layer, params, carry, xs, side: as of `checkpointed`; arrays or
        `jax.ShapeDtypeStruct`s.
      memory: bytes of temporary memory that the gradient may take, see `Plan.bytes`.
      chunk: steps of a stretch; None: chosen.

    Returns:
      A `Plan`; printed it is a table.

    Raises:
      ValueError: `memory` is less than any plan takes; the message names the least.
      NotImplementedError: the backend gives no account of memory.

    Cost: up to four small programs are compiled, once for these shapes.

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
    if not isinstance(memory, int) or memory < 1:
        raise ValueError(f"memory: expected a number of bytes, got {memory!r}")
    if chunk is not None and (not isinstance(chunk, int) or chunk < 1):
        raise ValueError(
            f"chunk: expected a number of steps of at least 1, got {chunk!r}"
        )
    shapes = jax.tree.map(_shape, (params, carry, xs, side))
    layer, T = lift(layer), trees.length(xs)
    leaves, structure = jax.tree.flatten(shapes)
    of = functools.partial(_fixed, layer, structure, tuple(leaves))
    found, least = [], math.inf
    for K in [min(chunk, T)] if chunk else _lengths(T, carry):
        at = _with_most_slots(of(K), T // K, K, memory)
        least = min(least, at.bytes)
        if at.bytes <= memory:
            found.append(at)
    if not found:
        raise ValueError(f"memory: expected at least {least} bytes, got {memory}")
    return min(found, key=_time)


def _shape(a) -> jax.ShapeDtypeStruct:
    a = a if hasattr(a, "dtype") else jnp.asarray(a)
    return jax.ShapeDtypeStruct(a.shape, a.dtype)


def _lengths(T: int, carry: PyTree) -> list[int]:
    """Lengths of a stretch to choose from: that of `checkpointed`, and shorter ones."""
    units = max((math.prod(a.shape) for a in jax.tree.leaves(carry)), default=1)
    longest = default_stretch(T, units)
    return sorted({near_divisor(T, max(1, longest // 4**k)) for k in range(4)})


class _Fixed(NamedTuple):
    """a, b and c of (1)."""

    stretch: int
    outputs: int
    carry: int


@functools.lru_cache(maxsize=256)
def _fixed(layer: Layer, structure, leaves: tuple, K: int) -> _Fixed:
    n, m = PROBE
    params, carry, xs, side = structure.unflatten(leaves)

    def short(a):
        return jax.ShapeDtypeStruct((n * K, *a.shape[1:]), a.dtype)

    xs, side = jax.tree.map(short, (xs, side))

    def run(params, carry, xs, side):
        return revolve(layer, params, carry, xs, side, chunk=K, slots=m)

    def gradient(params, carry, xs, side):
        out, back = trees.pullback(lambda *a: run(*a, side), params, carry, xs)
        return back(out)

    program = jax.jit(gradient).lower(params, carry, xs, side).compile()
    outputs = _size(jax.eval_shape(run, params, carry, xs, side)[1])
    stored = _size(carry)
    account = program.memory_analysis()
    if account is None:
        raise NotImplementedError(
            "plan: this backend does not say what memory it takes"
        )
    temp = account.temp_size_in_bytes
    return _Fixed(temp - outputs - m * stored, outputs // n, stored)


def _size(tree: PyTree) -> int:
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def _with_most_slots(of: _Fixed, n: int, K: int, memory: int) -> Plan:
    """With as many slots as there is memory for, at least one and at most n."""
    outputs = of.outputs * n
    without = outputs + max(outputs, of.stretch)
    m = min(n, max(1, (memory - without) // max(1, of.carry)))
    runs = schedule.evaluations(n, m) + 1
    return Plan(K, m, n, runs, runs / n, without + m * of.carry)


def _time(plan: Plan) -> float:
    """(2)"""
    runs = plan.evaluations + BACKWARD * plan.stretches
    return runs * (plan.chunk + OVERHEAD)
