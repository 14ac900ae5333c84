"""The product of rows with a weight that is packed for it: y[r] = x[r] W.

A tile is R rows by v vectors of W lanes, kept in registers while k runs:

    (1)  y[r, n] = Σ_k  x[r, k] w[k, n]            one fused multiply-add after another

in the order k = 0, 1, …, whatever R and v are and wherever sums rest meanwhile, so the bits of
a row depend neither on its place among the rows nor on how many there are. Packed, a weight is a
block for each tile's columns, in which k is the slower index: a tile reads it from first to last.

    (2)  blocks of 4 vectors as long as there are 4, then of 2, then of 1; the last lanes 0

A sum of outer products is the same tile with other strides: x[r, k] is number r of row k.
"""

import jax.numpy as jnp
import llvmlite.ir as ir
from jax import Array

from bptt_jax.native._llvm import I1, I64, PTR, VOID, intrinsic, loop, number, splat
from bptt_jax.native._machine import Machine

DEEPEST = 128  # numbers of a column at a time: with 4 vectors 32 kB, in the first cache
TALLEST = 6  # rows: with 4 vectors 24 sums, 4 weights and a number of x in 32 registers


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
    vector = ir.VectorType(scalar, lanes)
    f = declare_product(module, scalar)
    tiles = {
        (R, v): _tile(module, f"{f.name}_{R}_{v}", scalar, vector, size, R, v)
        for R in (TALLEST, 4, 2, 1)
        for v in widths(machine)
    }
    x, x_r, x_k, w, w_n, w_k, A, y, y_r, rows, vectors, fresh = f.args
    b = ir.IRBuilder(f.append_basic_block())
    is_packed = b.icmp_signed("==", w_k, number(0))

    def at(p, offset):
        return b.gep(p, [offset], source_etype=scalar)

    done = number(0)
    for v in widths(machine):  # (2)
        left = b.sub(vectors, done)
        end = b.add(done, b.mul(b.sdiv(left, number(v)), number(v)))

        def block(j, v=v):
            columns = b.mul(j, number(lanes))
            start, out = at(w, b.mul(columns, w_n)), at(y, columns)
            loop(b, number(0), A, DEEPEST, lambda k: part(k, start, out, v))

        def part(k, start, out, v):
            left = b.sub(A, k)
            short = b.icmp_signed("<", left, number(DEEPEST))
            depth = b.select(short, left, number(DEEPEST))
            apart = b.select(is_packed, number(v * lanes), w_k)
            ws, xs = at(start, b.mul(k, apart)), at(x, b.mul(k, x_k))
            first = b.and_(b.icmp_signed("==", k, number(0)), fresh)

            def tile(R, r):
                row = at(xs, b.mul(r, x_r)), x_r, x_k
                sums = at(out, b.mul(r, y_r)), y_r
                b.call(tiles[R, v], [*row, ws, apart, depth, *sums, first])

            row = number(0)
            tall = b.mul(b.sdiv(rows, number(TALLEST)), number(TALLEST))
            loop(b, row, tall, TALLEST, lambda r: tile(TALLEST, r))
            row = tall
            for R in (4, 2, 1):
                fits = b.icmp_signed(">=", b.sub(rows, row), number(R))
                with b.if_then(fits):
                    tile(R, row)
                row = b.select(fits, b.add(row, number(R)), row)

        loop(b, done, end, v, block)
        done = end
    b.ret_void()
    return f


def _tile(module, name, scalar, vector, size, R, v):
    """A tile's sums over some k, from 0 or from what y has."""
    kind = ir.FunctionType(VOID, [PTR, I64, I64, PTR, I64, I64, PTR, I64, I1])
    f = ir.Function(module, kind, name)
    f.linkage = "internal"
    f.attributes.add("noinline")
    x, x_r, x_k, w, w_k, A, y, y_r, first = f.args
    for a in (x, w, y):
        a.add_attribute("noalias")
    b = ir.IRBuilder(f.append_basic_block())
    lanes = vector.count
    rows = [b.gep(x, [b.mul(number(r), x_r)], source_etype=scalar) for r in range(R)]
    zero = ir.Constant(vector, [0.0] * lanes)

    def step(k, *sums):
        at_w = b.gep(w, [b.mul(k, w_k)], source_etype=scalar)
        at_k = b.mul(k, x_k)
        ws = [
            b.load(
                b.gep(at_w, [number(i * lanes)], source_etype=scalar),
                typ=vector,
                align=size,
            )
            for i in range(v)
        ]
        new = []
        for r in range(R):
            at_x = b.gep(rows[r], [at_k], source_etype=scalar)
            s = b.load(at_x, typ=scalar, align=size)
            s = splat(b, s, lanes)
            new += [
                intrinsic(b, "fma", s, ws[i], sums[r * v + i]) for i in range(v)
            ]  # (1)
        return new

    places = []
    for r in range(R):
        out = b.gep(y, [b.mul(number(r), y_r)], source_etype=scalar)
        each = [number(i * lanes) for i in range(v)]
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
