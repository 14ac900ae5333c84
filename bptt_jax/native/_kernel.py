"""A plan as LLVM: all steps of some rows, in one function.

    run(operands, scratch, sums, model, first, last, rows, steps)

goes through the rows [first, last) of one model in panels that stay in the cache, and takes
each panel through all steps before the next: rows do not see one another, so nothing is
waited for. In a step the stages of the plan follow one another over the whole panel; the
carry before the step and the one after it are two places that change roles. What is summed
over rows and steps is added to `sums`. Products that need no carry, and those that no later
step needs, are of several steps at once: as many as `DEEP` rows are. A weight is then read
once for all of them.
"""

import functools
import math
from typing import Any, NamedTuple

import llvmlite.ir as ir
import numpy as np

from bptt_jax.native._elementwise import elementwise, scalar
from bptt_jax.native._llvm import (
    I1,
    I8,
    I32,
    I64,
    PTR,
    VOID,
    Value,
    loop,
    number,
    splat,
    suffix,
)
from bptt_jax.native._machine import Machine
from bptt_jax.native._products import declare_product, padded
from bptt_jax.native._program import Unsupported
from bptt_jax.native._stages import Buffer, Loop, Outer, Plan, Product

PANEL = 96 * 1024, 1536 * 1024  # bytes that a panel of rows takes of the caches
DEEP = 128  # rows of a product that no step waits for


class Operands(NamedTuple):
    """What is behind each pointer that `run` is given, in order.

    params, carry, xs, firsts: the arguments, after params the packed weights; then the
      results, the carry and ys. firsts: what the first of xs are before the first step.
    rank: axes of examples.
    reverse: whether the last step is the first.
    models: for each argument whether each model has its own.
    """

    rank: int
    params: list
    carry: list
    xs: list
    firsts: list
    ys: list
    models: list[bool]
    reverse: bool = False


def stored(dtype) -> ir.Type:
    """As it is in memory: a bool has a byte."""
    return I8 if np.dtype(dtype) == np.bool_ else scalar(dtype)


def lanes_of(carry: list, machine: Machine) -> int:
    """Numbers of a vector: as many as the floats of the carry leave room for."""
    floats = [np.dtype(v.dtype) for v in carry if v.dtype in (np.float32, np.float64)]
    sizes: list[int] = [kind.itemsize for kind in floats]
    return machine.bits // (8 * max(sizes, default=4))


def define_run(
    module: ir.Module, plan: Plan, operands: Operands, machine: Machine
) -> int:
    """Defines `run`; returns how many bytes of scratch it takes."""
    return _Run(module, plan, operands, machine).define()


def places_of_sums(plan: Plan, lanes: int) -> tuple[dict[Buffer, int], int]:
    """Where each sum is, in numbers, and how many there are: rows of whole vectors."""
    wide = {stage.out: stage for stage in plan.stages if isinstance(stage, Outer)}
    places, start = {}, 0
    for buffer in plan.sums.values():
        outer = wide.get(buffer)
        A, N = (outer.A, outer.N) if outer else (1, buffer.size)
        places[buffer] = start
        start += A * padded(N, lanes)
    return places, start


class _Run:
    """One function, as it is built; `b` stands where the next instruction comes."""

    b: Any
    start: Value  # the first row of the panel
    height: Value  # rows of the panel
    t: Value  # the step, by its place in memory
    carry: list[Value]  # of each leaf the place before the step
    next: list[Value]  # and after it

    def __init__(self, module, plan: Plan, operands: Operands, machine: Machine):
        self.module, self.machine = module, machine
        self.plan, self.operands = plan, operands
        self.lanes = lanes_of(operands.carry, machine)
        self.layout()

    def layout(self) -> None:
        """Where in a panel's scratch each buffer is; rows as many as fit."""
        self.strides: dict[Buffer, int] = {}
        leaves = range(len(self.operands.carry))
        places = [self.leaf(kind, i) for kind in ("carry", "next") for i in leaves]
        for buffer in places:
            self.strides[buffer] = buffer.size
        for buffer in self.plan.scratch:  # a product writes whole vectors
            n = padded(buffer.size, self.lanes)
            # rows an odd number of cache lines apart: they do not meet in one set
            odd = buffer in self.plan.several and not n // self.lanes % 2
            self.strides[buffer] = n + self.lanes * odd
        row = sum(n * _bytes(b) for b, n in self.strides.items())
        # Weights that leave the cache are read again for each panel: it has a quarter of them.
        weights = sum(
            w.A * padded(w.N, self.lanes) * w.bytes for w in self.plan.weights
        )
        least, most = PANEL
        room = min(max(least, weights // 4), most)
        self.panel = max(6, min(48, room // max(1, row) // 6 * 6))  # at most
        self.deep = max(self.panel, DEEP)
        self.starts, start = {}, 0
        for buffer, n in self.strides.items():
            rows = self.deep if buffer in self.plan.several else self.panel
            self.starts[buffer] = start
            start += padded(rows * n * _bytes(buffer) + 64, 64)
        self.scratch = start + 64
        self.sums, _ = places_of_sums(self.plan, self.lanes)

    def define(self) -> int:
        kind = ir.FunctionType(VOID, [PTR, PTR, PTR, I64, I64, I64, I64, I64])
        f = ir.Function(self.module, kind, "run")
        f.linkage = "internal"
        self.b = b = ir.IRBuilder(f.append_basic_block())
        kind = ir.FunctionType(VOID, [PTR, PTR, I64, I1])
        self.memcpy = ir.Function(self.module, kind, "llvm.memcpy.p0.p0.i64")
        pointers, scratch, self.summed, model, first, last, self.rows, self.steps = (
            f.args
        )
        scratch.add_attribute("noalias")
        aligned = b.and_(b.add(b.ptrtoint(scratch, I64), number(63)), number(-64))
        self.area = b.inttoptr(aligned, PTR)
        self.model = model
        self.bases = self.addresses(pointers)
        # Panels of about as many rows each, an even number: none is left that is lower than a
        # tile, for which every weight would be read once more.
        rows = b.sub(last, first)
        of = _ceiling(b, rows, _ceiling(b, rows, number(self.panel)))
        height = b.mul(_ceiling(b, of, number(2)), number(2))
        panels = _ceiling(b, rows, height)
        at = lambda i: b.add(first, b.mul(i, height))
        loop(b, number(0), panels, 1, lambda i: self.of_panel(at(i), height, last))
        b.ret_void()
        return self.scratch

    def addresses(self, pointers) -> dict:
        """The first number of this model behind each pointer."""
        b, o = self.b, self.operands
        found = {}
        names = [("param", i) for i in range(len(o.params))]
        names += [("weight", i) for i in range(len(self.plan.weights))]
        names += [("carry", i) for i in range(len(o.carry))]
        names += [("x", i) for i in range(len(o.xs))]
        names += [("first", i) for i in range(len(o.firsts))]
        arguments = len(names)
        names += [("next", i) for i in range(len(o.carry))]
        names += [("y", i) for i in range(len(o.ys))]
        for i, name in enumerate(names):
            base = b.load(b.gep(pointers, [number(i)], source_etype=PTR), typ=PTR)
            if i >= arguments or o.models[i]:
                size, kind = self.of_model(*name)
                base = b.gep(base, [b.mul(self.model, size)], source_etype=kind)
            found[name] = base
        return found

    def of_model(self, kind: str, i: int) -> tuple:
        """How many numbers of an operand a model has."""
        b, o = self.b, self.operands
        if kind == "weight":
            weight = self.plan.weights[i]
            return number(weight.A * padded(weight.N, self.lanes)), scalar(
                weight.value.dtype
            )
        v = {
            "param": o.params,
            "carry": o.carry,
            "next": o.carry,
            "first": o.firsts,
            "x": o.xs,
            "y": o.ys,
        }[kind][i]
        size = number(_size(v, o) if kind != "param" else math.prod(v.shape))
        if kind != "param":
            shared = kind == "x" and not self.plan.rows[i]
            size = number(math.prod(v.shape)) if shared else b.mul(size, self.rows)
        if kind in ("x", "y"):
            size = b.mul(size, self.steps)
        return size, stored(v.dtype)

    # ---- a panel

    def of_panel(self, start, height, last) -> None:
        b = self.b
        left = b.sub(last, start)
        self.start = start
        self.height = b.select(b.icmp_signed("<", left, height), left, height)
        carries = [self.leaf("carry", i) for i in range(len(self.operands.carry))]
        here = [self.place(c) for c in carries]
        there = [self.place(c._replace(kind="next")) for c in carries]
        for c, to in zip(carries, here, strict=True):
            self.copy(to, self.external(c, "carry"), c)

        most = b.sdiv(number(self.deep), self.height)  # steps at once

        def block(i, *places):
            done = b.mul(i, most)
            left = b.sub(self.steps, done)
            n = b.select(b.icmp_signed("<", left, most), left, most)
            self.at_once(self.plan.early, done, n)
            places = loop(b, number(0), n, 1, functools.partial(step, done), places)
            self.at_once(self.plan.late, done, n)
            return places

        def step(done, slot, *places):
            n = len(places) // 2
            self.carry, self.next = list(places[:n]), list(places[n:])
            self.go_to(done, slot)
            for stage in self.plan.steps:
                self.stage(stage)
            return [*self.next, *self.carry]

        blocks = _ceiling(b, self.steps, most)
        places = loop(b, number(0), blocks, 1, block, [*here, *there])
        for c, place in zip(carries, places, strict=False):
            self.copy(self.external(c, "next"), place, c)

    def go_to(self, done, slot) -> None:
        """To a step of a block, which comes after so many."""
        b = self.b
        self.slot, t = slot, b.add(done, slot)
        self.t = b.sub(b.sub(self.steps, number(1)), t) if self.operands.reverse else t

    def at_once(self, stages: list, done, n) -> None:
        """Stages of n steps: products of all of them, what is pointwise step by step."""
        b, several = self.b, self.plan.several
        for stage in stages:
            if isinstance(stage, Outer):
                self.outer(stage, b.mul(n, self.height))
            elif isinstance(stage, Product) and stage.x in several:
                self.go_to(done, number(0))
                self.product(stage, b.mul(n, self.height))
            else:

                def step(slot, stage=stage):
                    self.go_to(done, slot)
                    self.stage(stage)

                loop(b, number(0), n, 1, step)

    def leaf(self, kind: str, i: int) -> Buffer:
        v = self.operands.carry[i]
        return Buffer(kind, i, _size(v, self.operands), v.dtype)

    def place(self, buffer: Buffer):
        return self.b.gep(self.area, [number(self.starts[buffer])], source_etype=I8)

    def external(self, carry: Buffer, kind: str):
        base = self.bases[kind, carry.number]
        offset = self.b.mul(self.start, number(carry.size))
        return self.b.gep(base, [offset], source_etype=stored(carry.dtype))

    def copy(self, to, source, buffer: Buffer) -> None:
        b = self.b
        size = b.mul(self.height, number(buffer.size * _bytes(buffer)))
        b.call(self.memcpy, [to, source, size, ir.Constant(I1, 0)])

    def stage(self, stage) -> None:
        if isinstance(stage, Product):
            return self.product(stage, self.height)
        loop(self.b, number(0), self.height, 1, lambda r: self.row(stage, r))

    def at(self, buffer: Buffer, r):
        """The first number of row r of the panel."""
        b, kind = self.b, stored(buffer.dtype)
        if buffer.kind in ("carry", "next"):
            base = (self.carry if buffer.kind == "carry" else self.next)[buffer.number]
            return b.gep(base, [b.mul(r, number(buffer.size))], source_etype=kind)
        if buffer.kind == "scratch":
            base, stride = self.place(buffer), number(self.strides[buffer])
            if buffer in self.plan.several:
                r = b.add(r, b.mul(self.slot, self.height))
            return b.gep(base, [b.mul(r, stride)], source_etype=kind)
        if buffer.kind == "sum":
            return b.gep(self.summed, [number(self.sums[buffer])], source_etype=kind)
        if buffer.kind == "lag":
            return self.before(buffer, r)
        if buffer.kind == "param":
            return self.bases["param", buffer.number]
        if buffer.kind == "shared":
            base = self.bases["x", buffer.number]
            return b.gep(base, [b.mul(self.t, number(buffer.size))], source_etype=kind)
        base = self.bases[buffer.kind, buffer.number]
        row = b.add(b.mul(self.t, self.rows), b.add(self.start, r))
        return b.gep(base, [b.mul(row, number(buffer.size))], source_etype=kind)

    def before(self, buffer: Buffer, r):
        """Of x, row r of the step before; of the first step, of what was given."""
        b, kind = self.b, stored(buffer.dtype)
        row = b.add(self.start, r)
        earlier = b.add(b.mul(b.sub(self.t, number(1)), self.rows), row)
        size, i = number(buffer.size), buffer.number
        at = [
            b.gep(self.bases[name, i], [b.mul(n, size)], source_etype=kind)
            for name, n in (("first", row), ("x", earlier))
        ]
        return b.select(b.icmp_signed("==", self.t, number(0)), *at)

    def stride(self, buffer: Buffer) -> int:
        return self.strides[buffer] if buffer.kind == "scratch" else buffer.size

    def product(self, p: Product, rows) -> None:
        kind = scalar(p.x.dtype)
        lanes = self.lanes
        if lanes * _bytes(p.x) * 8 != self.machine.bits:
            raise Unsupported("floats of two sizes")
        b = self.b
        x = b.gep(self.at(p.x, number(0)), [number(p.offset)], source_etype=kind)
        vectors = padded(p.N, lanes) // lanes
        b.call(declare_product(self.module, kind), [
            x, number(self.stride(p.x)), number(1),
            self.bases["weight", p.weight], number(p.A), number(0),
            number(p.A), self.at(p.out, number(0)), number(self.stride(p.out)),
            rows, number(vectors), ir.Constant(I1, 1),
        ])  # fmt: skip

    def outer(self, o: Outer, depth) -> None:
        kind, lanes = scalar(o.a.dtype), self.lanes
        if lanes * _bytes(o.a) * 8 != self.machine.bits:
            raise Unsupported("floats of two sizes")
        wide = padded(o.N, lanes)
        self.b.call(declare_product(self.module, kind), [
            self.place(o.a), number(1), number(self.strides[o.a]),
            self.place(o.d), number(1), number(self.strides[o.d]),
            depth, self.at(o.out, number(0)), number(wide),
            number(o.A), number(wide // lanes), ir.Constant(I1, 0),
        ])  # fmt: skip

    # ---- a loop over features

    def row(self, stage: Loop, r) -> None:
        wanted = {node for *_, node in stage.stores}
        buffers = {buffer for buffer, *_ in stage.stores}
        pending = list(wanted)
        seen = set()
        while pending:
            number_ = pending.pop()
            if number_ not in seen:
                seen.add(number_)
                node = self.plan.nodes[number_]
                pending += node.operands
                if node.name in ("load", "one"):
                    buffers.add(node.data[0])
        at = {buffer: self.at(buffer, r) for buffer in sorted(buffers, key=str)}
        whole = stage.n // self.lanes * self.lanes
        values = _Lanes(self, at, sorted(seen), None)
        if whole:
            loop(
                self.b,
                number(0),
                number(whole),
                self.lanes,
                lambda j: values.store(stage, j),
            )
        if stage.n > whole:
            rest = _Lanes(self, at, sorted(seen), stage.n - whole)
            rest.store(stage, number(whole))


class _Lanes:
    """The expressions of a loop, for the lanes from j on; of the last ones only so many."""

    def __init__(self, run: _Run, at: dict, nodes: list[int], only: int | None):
        self.run, self.at, self.order, self.only = run, at, nodes, only

    def store(self, stage: Loop, j) -> None:
        """All reads come before all writes: a value may take the place of an operand."""
        values: dict[int, Value] = {}
        for i in self.order:  # operands have smaller numbers
            values[i] = self.value(self.run.plan.nodes[i], values, j)
        for buffer, offset, node in stage.stores:
            self.write(buffer, offset, values[node], j)

    def address(self, buffer, offset, j):
        b = self.run.b
        place = b.add(j, number(offset)) if j is not None else number(offset)
        return b.gep(self.at[buffer], [place], source_etype=stored(buffer.dtype))

    def mask(self):
        lanes = self.run.lanes
        bits = [int(i < (self.only or lanes)) for i in range(lanes)]
        return ir.Constant(ir.VectorType(I1, lanes), bits)

    def read(self, buffer, offset, j):
        b, lanes = self.run.b, self.run.lanes
        kind = stored(buffer.dtype)
        vector, place = ir.VectorType(kind, lanes), self.address(buffer, offset, j)
        align = _bytes(buffer)
        if self.only is None:
            value = b.load(place, typ=vector, align=align)
        else:
            zeros = ir.Constant(vector, [0] * lanes)
            value = self.masked("load", vector, place, align, self.mask(), zeros)
        return (
            b.icmp_unsigned("!=", value, ir.Constant(vector, [0] * lanes))
            if _bool(buffer)
            else value
        )

    def write(self, buffer, offset, value, j) -> None:
        b, lanes = self.run.b, self.run.lanes
        if buffer.kind == "sum":
            value = b.fadd(value, self.read(buffer, offset, j))
        if _bool(buffer):
            value = b.zext(value, ir.VectorType(I8, lanes))
        place, align = self.address(buffer, offset, j), _bytes(buffer)
        if self.only is None:
            b.store(value, place, align=align)
        else:
            self.masked("store", value.type, value, place, align, self.mask())

    def masked(self, what: str, vector, *operands):
        """`llvm.masked.load` or `.store`: only lanes of the row are touched."""
        module, flags = self.run.module, ir.VectorType(I1, self.run.lanes)
        name = f"llvm.masked.{what}.{suffix(vector)}.p0"
        if what == "load":
            kind = ir.FunctionType(vector, [PTR, I32, flags, vector])
        else:
            kind = ir.FunctionType(VOID, [vector, PTR, I32, flags])
        f = module.globals.get(name) or ir.Function(module, kind, name)
        operands = [ir.Constant(I32, a) if isinstance(a, int) else a for a in operands]
        return self.run.b.call(f, operands)

    def value(self, node, values, j):
        b, lanes = self.run.b, self.run.lanes
        if node.name == "load":
            return self.read(*node.data, j)
        if node.name == "one":
            buffer, offset = node.data
            one = b.load(
                self.address(buffer, offset, None),
                typ=stored(buffer.dtype),
                align=_bytes(buffer),
            )
            if _bool(buffer):
                one = b.icmp_unsigned("!=", one, ir.Constant(I8, 0))
            return splat(b, one, lanes)
        if node.name == "constant":
            (value,) = np.frombuffer(node.data[0], node.dtype)
            return ir.Constant(
                ir.VectorType(scalar(node.dtype), lanes), [value.item()] * lanes
            )
        operands = [values[i] for i in node.operands]
        return elementwise(
            b, node, operands, [self.run.plan.nodes[i].dtype for i in node.operands]
        )


def _ceiling(b, n, m):
    """n over m, rounded up; n of at least 1."""
    return b.sdiv(b.add(n, b.sub(m, number(1))), m)


def _bool(buffer: Buffer) -> bool:
    return np.dtype(buffer.dtype) == np.bool_


def _bytes(buffer: Buffer) -> int:
    return np.dtype(buffer.dtype).itemsize


def _size(v, operands: Operands) -> int:
    return math.prod(v.shape[operands.rank :])
