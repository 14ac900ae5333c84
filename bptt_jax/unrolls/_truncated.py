"""Truncated backpropagation through time (Williams, Peng 1990: BPTT(h; h')).

The losses of the s = `stride` steps of a block are propagated back to h = `window` steps
before the end of the block, each loss once. Blocks end at T, T - s, T - 2s, …; the steps
left over are the first, shorter block. With g = h/s, going back from T:

    (1)  D_0, …, D_{g-1}: the cotangents of the state from the losses of this block, of
         the one after it, …; what would be D_g is dropped: that is the truncation
    (2)  at the end of each block   D_j ← D_{j-1},  D_0 ← 0
    (3)  in the block, stretch by stretch, each D_j is pulled back by `layer.bwd`, D_0
         together with the cotangents of the outputs
    (4)  dL/dθ = the sum over stretches and j

The forward pass, and what is stored, is that of `bptt`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from bptt_jax import _pytrees as trees
from bptt_jax import layers
from bptt_jax._chunks import default_chunk, units
from bptt_jax._factory import is_whole, plain
from bptt_jax.types import Cell, Layer, PyTree, Side
from bptt_jax.unrolls._bptt import forward
from bptt_jax.unrolls._door import known_length, of_targets, unroll


def _stretch(T: int, stride: int, chunk: int | None, carry: PyTree) -> int:
    """The steps of a stretch: a divisor of the stride, near `bptt`'s."""
    wanted = chunk or default_chunk(T, units(carry))
    divisors = [k for k in range(1, stride + 1) if stride % k == 0]
    return min(divisors, key=lambda k: max(k / wanted, (wanted / k) ** 2))


def _forward(layer, params, carry, xs, side, *, window, stride, chunk):
    del window
    K = _stretch(known_length(xs), stride, chunk, carry)
    return forward(layer, params, carry, xs, side, chunk=K)


def _backward(layer, residuals, d_carry, d_ys, *, window, stride, chunk):
    del chunk  # the stretches are those of the forward pass
    params, last, xs, side, ys, left = residuals
    K = left.K
    T, rest = trees.length(xs), trees.length(xs) % K
    n, stored, pieces = T // K, list(left.stretches), []
    generations = min(window // stride, -(-T // stride))
    ds = [_newest_only(d, generations) for d in trees.floats(last, d_carry)]
    acc = ds, trees.Sum.zeros(params)

    def pull(acc, xs, side, ys, d_ys, carry, residuals):  # (3), (4)
        ds, total = acc

        def one(d, d_ys):
            d_params, d_carry, d_xs, d_targets = layer.bwd(
                params, carry, xs, side, ys, residuals, trees.fill(carry, d), d_ys
            )
            return (
                trees.floats(params, d_params),
                trees.floats(carry, d_carry),
                (trees.floats(xs, d_xs), of_targets(side, d_targets)),
            )

        d_of = jax.tree.map(lambda a: _newest_only(a, generations), d_ys)
        each, ds, along = _over(generations, one)(ds, d_of)
        return (ds, total.add(each, over=0)), jax.tree.map(lambda d: d.sum(0), along)

    def next_block(ds, ends):  # (1), (2)
        return [
            jnp.where(ends, jnp.concatenate([jnp.zeros_like(d[:1]), d[:-1]]), d)
            for d in ds
        ]

    def turn(acc, at):
        (ds, total), (i, xs, side, ys, d_ys, kept) = acc, at
        ends = (i < n - 1) & ((n - 1 - i) % (stride // K) == 0)
        return pull((next_block(ds, ends), total), xs, side, ys, d_ys, *kept)

    if n:
        at = trees.fold(trees.cut((xs, side, ys, d_ys), rest, T), n)
        at = (jnp.arange(n, dtype=jnp.int32), *at, stored.pop())
        acc, along = lax.scan(turn, acc, at, reverse=True)
        pieces.append(trees.flat(along))
    if rest:
        ends = n > 0 and n % (stride // K) == 0
        acc = next_block(acc[0], ends), acc[1]
        at = trees.cut((xs, side, ys, d_ys), 0, rest)
        acc, along = pull(acc, *at, *stored.pop())
        pieces.insert(0, along)
    ds, total = acc
    return total.done(params), [d.sum(0) for d in ds], *trees.join(pieces)


def _over(generations: int, f):
    """f of each generation; where there is one, without an axis more in its products."""
    if generations > 1:
        return jax.vmap(f)

    def single(*arguments):
        return jax.tree.map(
            lambda a: a[None], f(*jax.tree.map(lambda a: a[0], arguments))
        )

    return single


def _newest_only(d, generations: int):
    """`d` in the first place, zeros in those of older losses."""
    zeros = jnp.broadcast_to(jnp.zeros_like(d), (generations - 1, *d.shape))
    return jnp.concatenate([d[None], zeros])


_truncated = unroll(_forward, _backward)


def truncated(
    layer: Layer | Cell,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    side: Side = Side(),
    *,
    window: int,
    stride: int | None = None,
    chunk: int | None = None,
    length: int | None = None,
    context: PyTree = (),
) -> tuple[PyTree, PyTree]:
    """Runs a layer through time; its gradient reaches back `window` steps at most.

    The values are those of the other unrolls; the gradient is that of the same loop
    with `stop_gradient` on the state where a window begins:

        for end in range(T, 0, -stride):            # each block of losses once
            start = max(0, end - window)
            state = stop_gradient(states[start])    # the initial carry is not stopped
            gradient += that of losses[end - stride : end] run from state

    With `stride == window` windows do not overlap and it costs what `bptt` does: a loss
    reaches back between 1 and `window` steps. With a shorter stride each reaches back at
    least `window - stride + 1` steps, for window/stride times the loop of the backward
    pass and as many copies of a stretch's weight gradient. `window >= T` is exact.

    Args:
      layer: a cell or a layer.
      params: its parameters.
      carry: the state before the first step, leaves `[..., H]`.
      xs: inputs, leaves `[T, ..., I]`; None: no inputs, with `length`.
      side: masks, resets, keys, targets; see `Side`.
      window: steps that a loss is propagated back, h, counted from the end of its block.
      stride: steps of a block, h'; divides `window`. None: `window`.
      chunk: steps of a stretch that is wished for; the nearest divisor of `stride` is
        taken. None: that of `bptt`.
      length: the number of steps, where `xs` is None.
      context: as of `bptt`.

    Returns:
      The state after the last step, and the outputs `[T, ..., O]`. The cotangent of
      that state counts as a loss of the last block.

    Raises:
      ValueError, TypeError: an argument does not fit; the message names it.

    Williams, Peng (1990), "An efficient gradient-based algorithm for on-line training
    of recurrent network trajectories".

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, unrolls
    >>> cell = cells.gru(3, 8)
    >>> params = cell.init(jax.random.key(0))
    >>> def loss(params, xs):
    ...     carry = cell.init_carry(params, (2,))
    ...     return (unrolls.truncated(cell, params, carry, xs, window=20, stride=5)[1]**2).sum()
    >>> grads = jax.grad(loss)(params, jnp.ones((50, 2, 3)))
    """
    layers.refuse_sections(
        "truncated", layer, "its gradient ends where a window begins"
    )
    stride = window if stride is None else stride
    for name, value in dict(window=window, stride=stride, chunk=chunk).items():
        if value is not None and (not is_whole(value) or value < 1):
            raise ValueError(
                f"{name}: expected a number of steps of at least 1, got {value!r}"
            )
    window, stride, chunk = int(window), int(stride), plain(chunk)
    if window % stride:
        raise ValueError(
            f"stride: expected a divisor of the window of {window} steps, got {stride}"
        )
    return _truncated(
        layer, params, carry, xs, side,
        length=length, context=context, window=window, stride=stride, chunk=chunk,
    )  # fmt: skip
