"""Text that a trained model writes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import models, unrolls
from bptt_jax._factory import positive
from bptt_jax.train._outputs import bucket
from bptt_jax.types import Layer, PyTree, Text

_UNREADABLE = "\ufffd"
"""Bytes that are no character, or none yet."""


class Manner(NamedTuple):
    """How symbols are drawn; see `models.generate`."""

    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int


def written(
    model: Layer,
    params: PyTree,
    text: Text,
    prompts: Sequence[str],
    length: int,
    stop: tuple[str, ...],
    manner: Manner,
) -> list[str]:
    """What follows each prompt: at most so many characters, up to the first of `stop`."""
    tokens, lengths = _tokens(text, prompts)
    key, n = jax.random.key(manner.seed), length * text.most
    drawn = models.generate(
        model, params, tokens, n, manner.temperature, key,
        top_k=manner.top_k, top_p=manner.top_p, lengths=lengths,
    )  # fmt: skip
    return [_cut(text.decode(row)[:length], stop) for row in np.asarray(drawn).T]


def streamed(
    model: Layer,
    params: PyTree,
    text: Text,
    prompt: str,
    length: int,
    stop: tuple[str, ...],
    manner: Manner,
) -> Iterator[str]:
    """The pieces of what `written` gives of one prompt, each as soon as it is known.

    What may be the beginning of a stop, and bytes that are no character yet, wait for what
    comes after them.
    """
    said, given, longest = "", 0, max(map(len, stop), default=1)
    found: list[int] = []
    for token in _symbols(model, params, text, prompt, length * text.most, manner):
        found.append(token)
        whole = text.decode(found)
        said = _cut(whole[:length], stop)
        known = whole.rstrip(_UNREADABLE)
        cut = len(said) < len(whole[:length])  # a longer stop may have begun before it
        if len(whole) > length or (cut and len(known) >= len(said) + longest - 1):
            break
        ready = min(len(known), length) - (longest - 1)
        if ready > given:
            yield said[given:ready]
            given = ready
        if len(known) == len(whole) == length:
            break
    if said[given:]:
        yield said[given:]


def _symbols(
    model: Layer, params, text: Text, prompt: str, n: int, manner: Manner
) -> Iterator[int]:
    """Those that `models.generate` draws, one after another."""
    tokens, lengths = _tokens(text, [prompt])
    temperature = jnp.asarray(manner.temperature)
    state, logits = models.begun(model, params, tokens, lengths)
    for key in jax.random.split(jax.random.key(manner.seed), n):
        token = models.drawn(logits, temperature, key, manner.top_k, manner.top_p)
        yield int(token[0])
        state, logits = unrolls.step(model, params, state, token)


def _tokens(text: Text, prompts: Sequence[str]) -> tuple[Any, Any]:
    """`[T, B]` and lengths `[B]`; T is one of few, so that few programs are compiled."""
    each = [np.asarray(text.encode(prompt)) for prompt in prompts]
    for i, tokens in enumerate(each):
        if not len(tokens):
            raise ValueError(f"prompt: expected some text, got none (of number {i})")
    lengths = np.array([len(tokens) for tokens in each], np.int32)
    found = np.zeros((bucket(int(lengths.max())), len(each)), np.int32)
    for i, tokens in enumerate(each):
        found[: len(tokens), i] = tokens
    return jnp.asarray(found), jnp.asarray(lengths)


def _cut(said: str, stop: tuple[str, ...]) -> str:
    return min((said.partition(one)[0] for one in stop), key=len, default=said)


def checked(
    text: Text | None, prompts: Any, length: int, stop: Any, manner: Manner
) -> tuple[str, ...]:
    """The texts that end it; refuses what is none, before anything is drawn."""
    if text is None:
        raise ValueError(
            "expected a run on text, whose symbols stand for some; a tokenizer that is not "
            "kept in its folder is given: load(…, tokenizer=)"
        )
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise TypeError(f"prompt: expected text, got {type(prompt).__name__}")
    positive(length=length)
    models.refuse_temperature(jnp.asarray(manner.temperature))
    models.filtered(jnp.zeros(1), top_k=manner.top_k, top_p=manner.top_p)
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(one, str) and one for one in stop):
        raise ValueError(f"stop: expected texts of at least a character, got {stop!r}")
    return stop
