"""Embedding → recurrent layers → readout, and two directions joined."""

import jax.numpy as jnp

from bptt_jax import layers, unrolls
from bptt_jax._factory import factory
from bptt_jax.types import BoundUnroll, Cell, Layer, Side, Unroll

Cells = Cell | Layer | tuple[Cell | Layer, ...] | list[Cell | Layer]


def _recurrent(cells: Cells, dropout: float) -> list[Layer]:
    """The cells as layers, dropout after each where its rate is not zero."""
    if isinstance(cells, Cell | Layer):
        cells = (cells,)
    if not isinstance(cells, tuple):
        raise TypeError(f"cells: expected cells, got a {type(cells).__name__}")
    if not cells:
        raise ValueError("cells: expected at least one cell, got none")
    between = [layers.dropout(dropout)] if dropout else []
    each = [layers.lift(cell, f"cells[{i}]") for i, cell in enumerate(cells)]
    return [layer for part in each for layer in (part, *between)]


@factory
def symbols(
    n_symbols: int, n_embedding: int, cells: Cells, n_out: int, n_hidden: int,
    *, dropout: float = 0.0,
) -> Layer:  # fmt: skip
    """Symbols in, outputs (logits, say) of each step out: `[T, ...] -> [T, ..., n_out]`.

    Args:
      n_symbols: how many symbols there are.
      n_embedding: features of a symbol, the first cell's inputs.
      cells: recurrent cells or layers, from the first to the last; one, or a tuple or
        list of them.
      n_out: outputs of a step.
      n_hidden: features of the last cell's output.
      dropout: rate of dropout after each recurrent layer.

    >>> from bptt_jax import cells, models
    >>> model = models.symbols(98, 64, (cells.lstm(64, 256),), 98, 256)
    """
    embedding = layers.embedding(n_symbols, n_embedding)
    readout = layers.dense(n_hidden, n_out)
    return layers.stack(embedding, *_recurrent(cells, dropout), readout)


@factory
def features(cells: Cells, n_out: int, n_hidden: int, *, dropout: float = 0.0) -> Layer:
    """Features in, outputs of each step out: `[T, ..., I] -> [T, ..., n_out]`.

    Args: as of `symbols`.

    >>> from bptt_jax import cells, models
    >>> model = models.features((cells.gru(2, 64),), 1, 64)
    """
    return layers.stack(*_recurrent(cells, dropout), layers.dense(n_hidden, n_out))


@factory
def bidirectional(
    forward: Layer | Cell, backward: Layer | Cell, unroll: Unroll = unrolls.bptt
) -> BoundUnroll:
    """Two layers, one in each direction of time, side by side.

    Args:
      forward: runs from the first step to the last.
      backward: runs from the last step to the first.
      unroll: runs both.

    Returns:
      `((p, q), (c, d), xs, side) -> (carries, ys)`, with `ys[t]` the two outputs at
      step t next to each other, `[T, ..., O + O']`. It needs the whole sequence. In a model,
      `wholes.bidirectional`.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, models
    >>> cell = cells.gru(3, 4)
    >>> both = models.bidirectional(cell, cell)
    >>> p, c = cell.init(jax.random.key(0)), jnp.zeros(4)
    >>> both((p, p), (c, c), jnp.ones((7, 3)))[1].shape
    (7, 8)
    """
    layers.lift(forward, "forward")
    layers.lift(backward, "backward")
    back = unrolls.reverse(unroll)

    def run(params, carry, xs, side=Side(), **options):
        each = [layers.of_part(side, i) for i in range(2)]  # two dropouts differ
        to_end, ys = unroll(forward, params[0], carry[0], xs, each[0], **options)
        to_start, zs = back(backward, params[1], carry[1], xs, each[1], **options)
        return (to_end, to_start), jnp.concatenate([ys, zs], -1)

    return run
