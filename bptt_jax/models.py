"""Models: embedding → recurrent layers → readout, and two directions joined.

A model is a layer, so an unroll runs it and `layers.with_loss` puts its loss inside. An
embedding and a readout are one product over all steps of a stretch.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from bptt_jax import _pytrees as trees
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
      step t next to each other, `[T, ..., O + O']`. It needs the whole sequence.

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
        to_end, ys = unroll(forward, params[0], carry[0], xs, side, **options)
        to_start, zs = back(backward, params[1], carry[1], xs, side, **options)
        return (to_end, to_start), jnp.concatenate([ys, zs], -1)

    return run


def generate(
    model: Layer | Cell,
    params,
    tokens: Array,
    n: int,
    temperature: Array | float,
    key: Array,
) -> Array:
    """Symbols drawn from a model of symbols, one after another.

    Args:
      model: tokens `[T, B]` in, logits `[T, B, n_symbols]` out.
      params: its parameters.
      tokens: the beginning, integers `[T]`, T of at least 1.
      n: how many symbols to draw.
      temperature: logits are divided by it; small is more certain, and 0 takes the most
        probable symbol each time (of several the first), as every number too small to
        divide by does.
      key: of everything drawn.

    Returns:
      Integers `[n]`, what follows the beginning; -1 where a temperature that is traced is
      negative or NaN.

    Raises:
      ValueError: a temperature that is known is negative or NaN, or a symbol is none.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, models
    >>> model = models.symbols(5, 3, (cells.gru(3, 8),), 5, 8)
    >>> params = model.init(jax.random.key(0))
    >>> models.generate(model, params, jnp.array([1, 2]), 4, 0, jax.random.key(1)).shape
    (4,)
    """
    model = layers.lift(model, "model")
    tokens, temperature = jnp.asarray(tokens), jnp.asarray(temperature)
    value = trees.known(temperature)
    if value is not None and not (value >= 0).all():
        raise ValueError(f"temperature: expected at least 0, got {value}")
    if model.refuse is not None:
        carry = jax.eval_shape(lambda p: model.init_carry(p, (1,)), params)
        model.refuse(params, carry, tokens[:, None], Side())
    return _generate(model, params, tokens, n, temperature, key)


@functools.partial(jax.jit, static_argnames=("model", "n"))
def _generate(model: Layer, params, tokens, n: int, temperature, key) -> Array:
    carry = model.init_carry(params, (1,))
    carry, logits = unrolls.bptt(model, params, carry, tokens[:, None])

    def draw(carry, key):
        state, logits = carry
        token = _drawn(logits, temperature, key)
        state, after = unrolls.scan(model, params, state, token[None])
        return (state, after[0]), token[0]

    _, drawn = lax.scan(draw, (carry, logits[-1]), jax.random.split(key, n))
    return drawn


def _drawn(logits: Array, temperature: Array, key: Array) -> Array:
    """A symbol of softmax(logits / temperature): `[B, n_symbols]` -> `[B]`."""
    dtype = trees.at_least_float32(logits.dtype)
    t = temperature.astype(dtype)
    cold = t < jnp.finfo(dtype).tiny  # below it a processor may take it for 0
    below = (logits - logits.max(-1, keepdims=True)).astype(
        dtype
    )  # no overflow but down
    drawn = jax.random.categorical(key, below / jnp.where(cold, jnp.ones_like(t), t))
    token = jnp.where(cold, jnp.argmax(logits, -1).astype(drawn.dtype), drawn)
    return jnp.where(t >= 0, token, -jnp.ones_like(token))
