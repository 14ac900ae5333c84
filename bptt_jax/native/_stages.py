"""What a plan is made of: memory, expressions, and stages of loops and products."""

from typing import Any, NamedTuple

import numpy as np

from bptt_jax.native._program import Equation

GIVEN = "x", "lag"  # kinds of buffers


class Buffer(NamedTuple):
    """Where numbers are.

    kind: "param" (one for all rows and steps), "shared" (one a step), "x" and "y" (one a
      row and step), "lag" ("x" of the same number, of the step before), "carry" and "next"
      (one a row), "scratch" (one a row, for one step), "sum" (one, summed over rows and steps).
    number: which of its kind.
    size: numbers of a row.
    dtype: of them.
    """

    kind: str
    number: int
    size: int
    dtype: Any


class Node(NamedTuple):
    """An expression over the lanes of a range; operands by number.

    name: of an elementwise primitive, or "load" (lane j reads `buffer[offset + j]`), "one"
      (all lanes read `buffer[offset]`), "constant" (its bytes: 0 and -0 are two).
    """

    name: str
    dtype: Any
    data: tuple
    operands: tuple[int, ...]


class Loop(NamedTuple):
    """`buffer[offset + j] = node` for j < n, for each store."""

    n: int
    stores: list[tuple[Buffer, int, int]]


class Product(NamedTuple):
    """`out[:N] = x[offset : offset + A] @ W`; `weight`: of `Plan.weights`."""

    x: Buffer
    offset: int
    A: int
    N: int
    weight: int
    out: Buffer


class Outer(NamedTuple):
    """`out[:A, :N] += Σ a[:A] ⊗ d[:N]` over rows; both in scratch that has several steps."""

    a: Buffer
    A: int
    d: Buffer
    N: int
    out: Buffer


class Weight(NamedTuple):
    """A value of weights alone, and how it is brought to `[A, N]`."""

    value: Any
    order: tuple[int, ...]
    A: int
    N: int

    @property
    def bytes(self) -> int:
        """Of a number."""
        return np.dtype(self.value.dtype).itemsize


class Plan(NamedTuple):
    """A step of a row.

    nodes: all expressions.
    early: stages that need no carry, of several steps at once.
    steps: those of one step after another.
    late: those that no later step needs, of several steps at once.
    weights: what is multiplied with.
    params: variables or constants, what else is read and does not change from step to step.
    outside: the equations that `weights` and `params` take.
    after: those that take sums over rows and steps, linear in them.
    sums: what is summed, by its variable: `[A, N]`, A of 1 where it is a row.
    scratch: what is there for one step.
    several: of scratch, what is there for several steps.
    rows: for each of xs whether it has the axes of examples.
    """

    nodes: list[Node]
    early: list
    steps: list
    late: list
    weights: list[Weight]
    params: list
    outside: list[Equation]
    after: list[Equation]
    sums: dict[Any, Buffer]
    scratch: list[Buffer]
    several: set[Buffer]
    rows: list[bool]

    def cost(self) -> int:
        """Operations of a row and step, roughly."""
        products = sum(2 * s.A * s.N for s in self.stages if not isinstance(s, Loop))
        return products + 16 * sum(
            s.n * len(s.stores) for s in self.stages if isinstance(s, Loop)
        )

    @property
    def stages(self) -> list:
        return [*self.early, *self.steps, *self.late]


class Draft:
    """Stages as they are found, and the expressions that they store."""

    def __init__(self):
        self.nodes: list[Node] = []
        self.numbers: dict[Node, int] = {}
        self.scratch: list[Buffer] = []
        self.stages: list = []
        self.front: list[Loop] = []  # of copies of what is given
        self.copies: dict[Any, Buffer] = {}

    # ---- expressions

    def node(self, name, dtype, data=(), operands=()) -> int:
        node = Node(name, np.dtype(dtype), data, tuple(operands))
        if node not in self.numbers:
            self.numbers[node] = len(self.nodes)
            self.nodes.append(node)
        return self.numbers[node]

    def reached(self, roots) -> set[int]:
        found, pending = set(), list(roots)
        while pending:
            node = pending.pop()
            if node not in found:
                found.add(node)
                pending += self.nodes[node].operands
        return found

    def read_by(self, node: int) -> set[Buffer]:
        nodes = (self.nodes[i] for i in self.reached([node]))
        return {node.data[0] for node in nodes if node.name in ("load", "one")}

    def replaced(self, loop: Loop, old: int, new: int) -> Loop:
        made = {old: new}

        def again(number):
            if number not in made:
                node = self.nodes[number]
                operands = tuple(again(i) for i in node.operands)
                made[number] = self.node(node.name, node.dtype, node.data, operands)
            return made[number]

        return Loop(
            loop.n, [(buffer, o, again(node)) for buffer, o, node in loop.stores]
        )

    # ---- stages

    def temporary(self, size: int, dtype) -> Buffer:
        buffer = Buffer("scratch", len(self.scratch), size, dtype)
        self.scratch.append(buffer)
        return buffer

    def copied(self, place: Buffer, offset: int, size: int) -> Buffer:
        """Scratch with some numbers of each row."""
        if place.kind == "scratch" and place.size == size:
            return place
        key = place, offset, size
        if key not in self.copies:
            self.copies[key] = self.temporary(size, place.dtype)
            load = self.node(
                "load" if size > 1 else "one", place.dtype, (place, offset)
            )
            stages = self.front if place.kind in GIVEN else self.stages
            stages.append(Loop(size, [(self.copies[key], 0, load)]))
        return self.copies[key]

    def loops(self, stores: list) -> None:
        """A loop for all stores of the same number of features."""
        for n in dict.fromkeys(n for n, *_ in stores):
            self.stages.append(Loop(n, [tuple(rest) for m, *rest in stores if m == n]))

    def parts(self, stage):
        """`(part, what it reads, what it writes)`: of a loop one for each store."""
        if isinstance(stage, Product):
            yield stage, {stage.x}, stage.out
        elif isinstance(stage, Outer):
            yield stage, {stage.a, stage.d}, stage.out
        else:
            for store in stage.stores:
                yield Loop(stage.n, [store]), self.read_by(store[2]), store[0]
