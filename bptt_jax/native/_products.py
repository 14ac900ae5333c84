"""The product of rows with a weight that is packed for it: y[r] = x[r] W.

A tile is R rows by v vectors of W lanes, kept in registers while k runs:

    (1)  y[r, n] = Σ_k  x[r, k] w[k, n]            one fused multiply-add after another

in the order k = 0, 1, …, whatever R and v are and wherever sums rest meanwhile, so the bits of
a row depend neither on its place among the rows nor on how many there are. Packed, a weight is a
block for each tile's columns, in which k is the slower index: a tile reads it from first to last.

    (2)  blocks of 4 vectors as long as there are 4, then of 2, then of 1; the last lanes 0

A multiply-add takes some cycles, in each of which others can begin: a tile of few rows has few
sums, so with less rows than a tile has it is as wide as several blocks,

    (3)  R · v · u <= 8                            u blocks side by side: 1, 2, 4

and of more rows none are left that have no tile of nearly so many (`_heights`).

A sum of outer products is the same tile with other strides: x[r, k] is number r of row k.
"""

import functools

import jax.numpy as jnp
import llvmlite.ir as ir
from jax import Array

from bptt_jax.native._llvm import I1, I64, PTR, VOID, intrinsic, loop, number, splat
from bptt_jax.native._machine import Machine

DEEPEST = 128  # numbers of a column at a time: with 4 vectors 32 kB, in the first cache
TALLEST = 6  # rows: with 4 vectors 24 sums, 4 weights and a number of x in 32 registers
LOWER = 4, 3, 2, 1
SUMS = 8  # that are under way: of as many cycles, twice the instructions of one


def widths(machine: Machine) -> tuple[int, ...]:
    """The vectors of a tile, widest first."""
    return (4, 2, 1) if machine.registers >= 32 else (2, 1)


def padded(n: int, lanes: int) -> int:
    return -(-n // lanes) * lanes


def blocks(n: int, machine: Machine, lanes: int) -> list[int]:
    """How many vectors each block of n columns has, by (2)."""
    vectors, found = padded(n, lanes) // lanes, []
    for width in widths(machine):
        found += [width] * (vectors // width)
        vectors %= width
    return found


def packed(w: Array, machine: Machine, lanes: int) -> Array:
    """`[A, N]` as (2) has it, `[A · padded(N)]`."""
    A, N = w.shape
    w = jnp.pad(w, ((0, 0), (0, padded(N, lanes) - N)))
    parts, start, found = [], 0, blocks(N, machine, lanes)
    for width in dict.fromkeys(found):
        n, columns = found.count(width), width * lanes
        part = w[:, start : start + n * columns].reshape(A, n, columns)
        parts.append(part.swapaxes(0, 1).reshape(-1))
        start += n * columns
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def name_of(scalar) -> str:
    return f"bptt_jax_product_{'f32' if isinstance(scalar, ir.FloatType) else 'f64'}"


def declare_product(module: ir.Module, scalar) -> ir.Function:
    """`product(x, x_r, x_k, w, w_n, w_k, A, y, y_r, rows, vectors, fresh)`: (1).

    x_r, x_k, w_n, w_k, y_r are how many numbers apart rows, k and columns are; w_k of 0: w is
    packed. Not fresh: it is added to y.
    """
    kind = ir.FunctionType(
        VOID, [PTR, *[I64] * 2, PTR, *[I64] * 3, PTR, *[I64] * 3, I1]
    )
    name = name_of(scalar)
    return module.globals.get(name) or ir.Function(module, kind, name)


def define_product(module: ir.Module, scalar, machine: Machine) -> ir.Function:
    """`declare_product`'s function for vectors of this machine."""
    size = 4 if isinstance(scalar, ir.FloatType) else 8
    lanes = machine.bits // (8 * size)
    f, widest = declare_product(module, scalar), widths(machine)[0]
    shapes = [(R, v, 1) for R in (TALLEST, *LOWER) for v in widths(machine)]
    shapes += [(R, widest, u) for R in LOWER if (u := _abreast(R, widest)) > 1]
    kind = ir.VectorType(scalar, lanes), size
    tiles = {at: _tile(module, f"{f.name}_{at}", scalar, *kind, *at) for at in shapes}
    _, _, _, _, _, w_k, _, _, _, rows, *_ = f.args
    b = ir.IRBuilder(f.append_basic_block())
    made = _Product(b, f.args, tiles, scalar, lanes)
    low = b.icmp_signed("<", rows, number(TALLEST))
    with b.if_else(low) as (few, many):
        with few:
            made.of_few(widths(machine))
        with many:
            made.of_many(widths(machine))
    b.ret_void()
    return f


def _abreast(R: int, v: int) -> int:
    """u of (3)."""
    u = 1
    while 2 * R * v * u <= SUMS:
        u *= 2
    return u


class _Product:
    """One function, as it is built."""

    def __init__(self, b, arguments, tiles: dict, scalar, lanes: int):
        self.b, self.tiles, self.scalar, self.lanes = b, tiles, scalar, lanes
        self.x, self.x_r, self.x_k, self.w, self.w_n, self.w_k, self.A = arguments[:7]
        self.y, self.y_r, self.rows, self.vectors, self.fresh = arguments[7:]
        self.packed = b.icmp_signed("==", self.w_k, number(0))

    def at(self, p, offset):
        return self.b.gep(p, [offset], source_etype=self.scalar)

    def columns(self, widths, block) -> None:
        """`block(v, first, last)` for the vectors of blocks of each width, by (2)."""
        b, done = self.b, number(0)
        for v in widths:
            left = b.sub(self.vectors, done)
            end = b.add(done, b.mul(b.sdiv(left, number(v)), number(v)))
            block(v, done, end)
            done = end

    def of_many(self, widths) -> None:
        """A block at a time, and of it what stays in the first cache, for all rows."""

        def block(v, first, last):
            loop(self.b, first, last, v, lambda j: loop(
                self.b, number(0), self.A, DEEPEST, lambda k: part(v, j, k)
            ))  # fmt: skip

        def part(v, j, k):
            b, left = self.b, self.b.sub(self.A, k)
            short = b.icmp_signed("<", left, number(DEEPEST))
            depth = b.select(short, left, number(DEEPEST))
            self.heights(lambda R, r: self.tile(R, v, 1, r, j, k, depth))

        self.columns(widths, block)

    def heights(self, tile) -> None:
        """Tiles for rows that are at least `TALLEST`.

        Where 1, 2 or 5 would be left they are taken with six others, as 4 + 3, 4 + 4 and
        4 + 4 + 3.
        """
        b, high = self.b, number(TALLEST)
        left = b.srem(self.rows, high)
        is_left = lambda *of: functools.reduce(
            b.or_, [b.icmp_signed("==", left, number(n)) for n in of]
        )
        tall = b.mul(b.sdiv(self.rows, high), high)
        row = b.select(is_left(1, 2, 5), b.sub(tall, high), tall)
        loop(b, number(0), row, TALLEST, lambda r: tile(TALLEST, r))
        for R in (4, 4, 3):
            fits = b.icmp_signed(">=", b.sub(self.rows, row), number(R))
            with b.if_then(fits):
                tile(R, row)
            row = b.select(fits, b.add(row, number(R)), row)

    def of_few(self, widths) -> None:
        """Rows that are no tile of `TALLEST`: as many blocks at once as (3) says."""
        b, row = self.b, number(0)
        for R in LOWER:
            fits = b.icmp_signed(">=", b.sub(self.rows, row), number(R))

            def block(v, first, last, R=R, row=row):
                u = _abreast(R, v) if v == widths[0] else 1
                several = b.mul(
                    number(u * v), b.sdiv(b.sub(last, first), number(u * v))
                )
                middle, zero = b.add(first, several), number(0)
                of = lambda u: lambda j: self.tile(R, v, u, row, j, zero, self.A)
                loop(b, first, middle, u * v, of(u))
                if u > 1:
                    loop(b, middle, last, v, of(1))

            with b.if_then(fits):
                self.columns(widths, block)
            row = b.select(fits, b.add(row, number(R)), row)

    def tile(self, R, v, u, r, j, k, depth) -> None:
        """Of rows from r and vectors from j the sums over k to k + depth."""
        b, columns = self.b, self.b.mul(j, number(self.lanes))
        apart = b.select(self.packed, number(v * self.lanes), self.w_k)
        start = self.at(self.w, b.mul(columns, self.w_n))
        row = self.at(self.at(self.x, b.mul(k, self.x_k)), b.mul(r, self.x_r))
        sums = self.at(self.at(self.y, columns), b.mul(r, self.y_r))
        first = b.and_(b.icmp_signed("==", k, number(0)), self.fresh)
        between = b.mul(self.w_n, number(v * self.lanes))  # blocks
        b.call(self.tiles[R, v, u], [
            row, self.x_r, self.x_k, self.at(start, b.mul(k, apart)), apart, between,
            depth, sums, self.y_r, first,
        ])  # fmt: skip


def _tile(module, name, scalar, vector, size, R, v, u):
    """A tile's sums over some k, from 0 or from what y has."""
    kind = ir.FunctionType(VOID, [PTR, I64, I64, PTR, *[I64] * 3, PTR, I64, I1])
    f = ir.Function(module, kind, name)
    f.linkage = "internal"
    f.attributes.add("noinline")
    x, x_r, x_k, w, w_k, between, A, y, y_r, first = f.args
    between.name = "between"
    for a in (x, w, y):
        a.add_attribute("noalias")
    b = ir.IRBuilder(f.append_basic_block())
    lanes = vector.count
    rows = [b.gep(x, [b.mul(number(r), x_r)], source_etype=scalar) for r in range(R)]
    zero = ir.Constant(vector, [0.0] * lanes)
    n = v * u

    def step(k, *sums):
        at_k, ws = b.mul(k, x_k), []
        for block in range(u):
            inside = b.add(b.mul(k, w_k), b.mul(between, number(block)))
            at_w = b.gep(w, [inside], source_etype=scalar)
            each = [
                b.gep(at_w, [number(i * lanes)], source_etype=scalar) for i in range(v)
            ]
            ws += [b.load(p, typ=vector, align=size) for p in each]
        new = []
        for r in range(R):
            at_x = b.gep(rows[r], [at_k], source_etype=scalar)
            s = b.load(at_x, typ=scalar, align=size)
            s = splat(b, s, lanes)
            new += [
                intrinsic(b, "fma", s, ws[i], sums[r * n + i]) for i in range(n)
            ]  # (1)
        return new

    places = []
    for r in range(R):
        out = b.gep(y, [b.mul(number(r), y_r)], source_etype=scalar)
        each = [number(i * lanes) for i in range(n)]
        places += [b.gep(out, [i], source_etype=scalar) for i in each]
    start, again, go = (b.append_basic_block() for _ in range(3))
    b.cbranch(first, start, again)
    b.position_at_end(start)
    b.branch(go)
    b.position_at_end(again)
    before = [b.load(place, typ=vector, align=size) for place in places]
    b.branch(go)
    b.position_at_end(go)
    sums = []
    for value in before:
        sums.append(b.phi(vector))
        sums[-1].add_incoming(zero, start)
        sums[-1].add_incoming(value, again)
    for value, place in zip(loop(b, number(0), A, 1, step, sums), places, strict=True):
        b.store(value, place, align=size)
    b.ret_void()
    return f
