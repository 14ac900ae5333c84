"""A stretch that is longer than its transients should be, run in shorter ones.

With s_i the state before piece i of K steps, as in `unrolls.bptt`:

    (1)  s_{i+1}, ys_i, kept_i  =  forward(s_i, inputs_i)                    i = 1 … T/K
    (2)  dθ_i, d s_i, d inputs_i  =  backward(s_i, …; d s_{i+1}, d ys_i)        T/K … 1
    (3)  dθ  =  Σ_i dθ_i
"""

import jax
from jax import lax

from bptt_jax import _pytrees as trees
from bptt_jax._chunks import default_chunk, units
from bptt_jax.types import Loop


def forward(loop: Loop, cell, params, carry, inputs, keep, length):
    """`loop.forward`, piece by piece."""
    K = default_chunk(length, units(carry))
    rest, pieces = length % K, []

    def piece(carry, inputs, n):
        carry, ys, kept = loop.forward(cell, params, carry, inputs, keep, n)
        return carry, (ys, kept)

    if rest:  # the first piece is shorter; time is never padded
        carry, along = piece(carry, trees.cut(inputs, 0, rest), rest)
        pieces.append(along)
    at = trees.fold(trees.cut(inputs, rest, length), length // K)
    carry, along = lax.scan(lambda c, a: piece(c, a, K), carry, at, length // K)  # (1)
    return carry, *trees.join([*pieces, trees.flat(along)])


def backward(loop: Loop, cell, save, params, inputs, carry, nexts, kept, d_carry, d_ys):
    """`loop.backward`, piece by piece."""
    T = trees.length(nexts)
    K = default_chunk(T, units(carry))
    rest, pieces = T % K, []
    between = trees.cut(nexts, rest + K - 1, T)
    ends = jax.tree.map(lambda a: a[::K], between)  # after each whole piece
    start = jax.tree.map(lambda a: a[rest - 1], nexts) if rest else carry
    along = inputs, nexts, kept, d_ys

    def piece(acc, at):  # (2), (3)
        (d_carry, total), (carry, (inputs, nexts, kept, d_ys)) = acc, at
        d_params, d_carry, d_inputs = loop.backward(
            cell, save, params, inputs, carry, nexts, kept,
            trees.fill(carry, d_carry), d_ys,
        )  # fmt: skip
        total = total.add(trees.floats(params, d_params))
        return (trees.floats(carry, d_carry), total), d_inputs

    acc = trees.floats(carry, d_carry), trees.Sum.zeros(params)
    whole = trees.before(start, ends), trees.fold(trees.cut(along, rest, T), T // K)
    acc, d_inputs = lax.scan(piece, acc, whole, reverse=True)
    pieces.append(trees.flat(d_inputs))
    if rest:
        acc, d_inputs = piece(acc, (carry, trees.cut(along, 0, rest)))
        pieces.insert(0, d_inputs)
    d_carry, total = acc
    d_params = trees.fill(params, total.done(params))
    return d_params, trees.fill(carry, d_carry), trees.join(pieces)
