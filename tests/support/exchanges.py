"""What a program over several devices exchanges, and how much each of them multiplies."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from support import hlo

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)


class Exchange(NamedTuple):
    kind: str
    loops: tuple[str, ...]  # bodies of the loops that it is in, the outermost first
    shapes: list[tuple[int, ...]]


def found(text: str) -> list[Exchange]:
    """Every exchange of a compiled program."""
    return [
        Exchange(kind, loops, i.shapes)
        for i, _, loops, _ in _instructions(hlo.parse(text))
        for kind in KINDS
        if i.op in (kind, f"{kind}-start")
    ]


def multiplications(text: str) -> int:
    """Of a device, in all matrix products, as often as their loops run.

    A loop whose number of runs is decided while it runs counts once.
    """
    total = 0
    for i, shapes, _, times in _instructions(hlo.parse(text)):
        if i.op == "dot":
            axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.text)[1]
            sizes = shapes[i.operands[0]]
            contracted = math.prod(sizes[int(axis)] for axis in axes.split(",") if axis)
            total += times * contracted * math.prod(i.shapes[0])
    return total


def _instructions(module: hlo.Module) -> Iterator[tuple]:
    """`(instruction, shapes in its computation, loops around it, times it runs)`."""
    called = {c for found in module.values() for i in found for c in i.called}
    waiting = [(name, (), 1) for name in module if name not in called]
    while waiting:
        name, loops, times = waiting.pop()
        shapes = {i.name: i.shapes[0] for i in module[name] if i.shapes}
        for i in module[name]:
            yield i, shapes, loops, times
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', i.text)
            inner = (*loops, i.body) if i.body else loops
            runs = times * int(trips[1]) if i.body and trips else times
            waiting += [(c, inner, runs) for c in i.called]
