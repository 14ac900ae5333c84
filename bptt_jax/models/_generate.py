"""Symbols drawn from a model, one after another, and what is left of its distribution."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax import layers, unrolls
from bptt_jax._factory import is_whole
from bptt_jax.types import Cell, Layer, PyTree, Side


def filtered(
    logits: Array, *, top_k: int | None = None, top_p: float | None = None
) -> Array:
    """Logits of which some are -inf: symbols that are not drawn. `[..., V] -> [..., V]`.

    Args:
      logits: of the symbols.
      top_k: so many symbols, the most probable, are left; of equal ones the first.
      top_p: the fewest symbols are left, from the most probable on, whose probabilities
        add up to this; after `top_k`, by what that leaves. One is always left.

    Raises:
      ValueError: `top_k` is no whole number of at least 1, or `top_p` not in (0, 1].

    >>> import jax, jax.numpy as jnp
    >>> logits = jnp.log(jnp.array([0.1, 0.5, 0.4]))
    >>> jax.nn.softmax(filtered(logits, top_k=1))
    Array([0., 1., 0.], dtype=float32)
    >>> jax.nn.softmax(filtered(logits, top_p=0.8)).round(2)
    Array([0.  , 0.56, 0.44], dtype=float32)
    """
    if top_k is None and top_p is None:
        return logits
    order = jnp.argsort(-logits, axis=-1, stable=True)
    ranks = jnp.argsort(order, axis=-1, stable=True)
    if top_k is not None:
        _refuse_top_k(top_k)
        logits = jnp.where(ranks < top_k, logits, -jnp.inf)
    if top_p is not None:
        _refuse_top_p(top_p)
        odds = jax.nn.softmax(logits.astype(trees.at_least_float32(logits.dtype)), -1)
        sorted_odds = jnp.take_along_axis(odds, order, -1)
        before = jnp.cumsum(sorted_odds, -1) - sorted_odds
        enough = jnp.take_along_axis(before, ranks, -1) >= top_p
        logits = jnp.where(enough & (ranks > 0), -jnp.inf, logits)
    return logits


def _refuse_top_k(top_k: Any) -> None:
    if not is_whole(top_k) or top_k < 1:
        raise ValueError(f"top_k: expected a whole number of at least 1, got {top_k!r}")


def _refuse_top_p(top_p: Any) -> None:
    if isinstance(top_p, bool) or not isinstance(top_p, int | float | np.number):
        raise TypeError(f"top_p: expected a number, got {type(top_p).__name__}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected a number in (0, 1], got {top_p!r}")


def generate(
    model: Layer | Cell,
    params: PyTree,
    tokens: Array,
    n: int,
    temperature: Array | float,
    key: Array,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
    lengths: Array | None = None,
) -> Array:
    """Symbols drawn from a model of symbols, one after another.

    Args:
      model: tokens `[T, B]` in, logits `[T, B, n_symbols]` out.
      params: its parameters; `layers.with_context` of them where a part sees one.
      tokens: the beginning, integers `[T]`, T of at least 1; of several texts `[T, B]`.
      n: how many symbols to draw.
      temperature: logits are divided by it; small is more certain, and 0 takes the most
        probable symbol each time (of several the first), as every number too small to
        divide by does.
      key: of everything drawn.
      top_k, top_p: which symbols are drawn at all, see `filtered`; None: any.
      lengths: integers `[B]`, symbols of each beginning; those after them are not read.
        None: T. At least 1.

    Returns:
      Integers `[n]` or `[n, B]`, what follows the beginning; -1 where a temperature that is
      traced is negative or NaN, or a length that is traced is none.

    Raises:
      ValueError: a temperature that is known is negative or NaN, a length is less than 1
        or more than T, or a symbol is none.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, models
    >>> model = models.symbols(5, 3, (cells.gru(3, 8),), 5, 8)
    >>> params = model.init(jax.random.key(0))
    >>> models.generate(model, params, jnp.array([1, 2]), 4, 0, jax.random.key(1)).shape
    (4,)
    >>> two = jnp.array([[1, 4], [2, 0]])  # the second begins with one symbol
    >>> models.generate(model, params, two, 4, 0.7, jax.random.key(1), top_k=3,
    ...                 lengths=jnp.array([2, 1])).shape
    (4, 2)
    """
    layers.refuse_sections("generate", model, "it draws one symbol after another")
    model = layers.lift(model, "model")
    tokens, temperature = jnp.asarray(tokens), jnp.asarray(temperature)
    refuse_temperature(temperature)
    one = tokens.ndim == 1
    tokens = tokens[:, None] if one else tokens
    if lengths is not None:
        lengths = jnp.asarray(lengths)
        _refuse_lengths(lengths, *tokens.shape)
        lengths = lengths.astype(jnp.int32)  # uint8 would count rows to 255
    if model.refuse is not None:
        carry = jax.eval_shape(lambda p: model.init_carry(p, tokens.shape[1:]), params)
        model.refuse(params, carry, tokens, Side())
    given = params, tokens, lengths
    drawn = _generate(model, n, top_k, top_p, *given, temperature, key)
    return drawn[:, 0] if one else drawn


def _refuse_lengths(lengths: Array, T: int, B: int) -> None:
    """Their values where they are known."""
    if lengths.shape != (B,):
        raise ValueError(f"lengths: expected {[B]}, got {list(lengths.shape)}")
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
    value = trees.known(lengths)
    if value is not None and not (fits := _fit(value, T)).all():
        first = int(np.argmin(fits))
        raise ValueError(
            f"lengths: expected numbers from 1 to the {T} symbols of tokens, got "
            f"{value[first]} at [{first}]"
        )


def _fit(lengths, T: int):
    return (lengths >= 1) & (lengths <= T)


def refuse_temperature(temperature: Array) -> None:
    """Where its value is known."""
    value = trees.known(temperature)
    if value is not None and not (value >= 0).all():
        raise ValueError(f"temperature: expected at least 0, got {value}")


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _generate(
    model: Layer, n, top_k, top_p, params, tokens, lengths, temperature, key
) -> Array:
    state, logits = begun(model, params, tokens, lengths)

    def draw(carry, key):
        state, logits = carry
        token = drawn(logits, temperature, key, top_k, top_p)
        state, after = unrolls.scan(model, params, state, token[None])
        return (state, after[0]), token

    _, found = lax.scan(draw, (state, logits), jax.random.split(key, n))
    if lengths is None:
        return found
    return jnp.where(_fit(lengths, len(tokens)), found, -jnp.ones_like(found))


@functools.partial(jax.jit, static_argnums=0)
def begun(model: Layer, params, tokens, lengths) -> tuple[PyTree, Array]:
    """The state after a beginning `[T, B]`, and the logits `[B, V]` of what comes next."""
    carry = model.init_carry(params, tokens.shape[1:])
    if lengths is None:
        carry, logits = unrolls.bptt(model, params, carry, tokens)
        return carry, logits[-1]
    side = Side(mask=unrolls.sequence_mask(lengths, len(tokens)))
    carry, logits = unrolls.bptt(model, params, carry, tokens, side)
    rows = jnp.arange(len(lengths), dtype=lengths.dtype)
    return carry, logits[lengths - 1, rows]


@functools.partial(jax.jit, static_argnums=(3, 4))
def drawn(
    logits: Array, temperature: Array, key: Array, top_k=None, top_p=None
) -> Array:
    """A symbol of softmax(logits / temperature), filtered: `[B, n_symbols]` -> `[B]`."""
    dtype = trees.at_least_float32(logits.dtype)
    t = temperature.astype(dtype)
    cold = t < jnp.finfo(dtype).tiny  # below it a processor may take it for 0
    below = (logits - logits.max(-1, keepdims=True)).astype(
        dtype
    )  # no overflow but down
    warm = below / jnp.where(cold, jnp.ones_like(t), t)
    found = jax.random.categorical(key, filtered(warm, top_k=top_k, top_p=top_p))
    token = jnp.where(cold, jnp.argmax(logits, -1).astype(found.dtype), found)
    return jnp.where(t >= 0, token, -jnp.ones_like(token))
