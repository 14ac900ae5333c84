"""The text of a task."""

from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from bptt_jax import _pytrees as trees

REPLACEMENT = ("\ufffd", "\xff")
"""Says "unreadable"; the byte 0xFF, which UTF-8 never holds, decodes to the first."""


class TextEncode(Protocol):
    """The symbols of a text.

    Args:
      text: any.

    Returns:
      tokens, int32 `[N]`.
    """

    def __call__(self, text: str, /) -> np.ndarray: ...


class TextDecode(Protocol):
    """The text of symbols.

    Args:
      tokens: integers `[N]`.

    Raises:
      ValueError: a token is no symbol's, -1 included.
    """

    def __call__(self, tokens, /) -> str: ...


class TextTokens(Protocol):
    """The symbols from `start` up to `stop` of a text, integers `[stop - start]`."""

    def __call__(self, start: int, stop: int, /) -> np.ndarray: ...


class TextCharacters(Protocol):
    """How many characters each of so many pieces of a text has.

    Args:
      start: the first symbol of the first piece.
      n: pieces, side by side.
      every: symbols of a piece.

    Returns:
      numbers `[n]`; of bytes, where `Text.per` is one.
    """

    def __call__(self, start: int, n: int, every: int, /) -> np.ndarray: ...


class TextWritten(Protocol):
    """What a run's folder is to keep of a tokenizer: a file's name and all its bytes."""

    def __call__(self, /) -> tuple[str, bytes]: ...


class TextPart(NamedTuple):
    """A text that is trained on, or held out: B rows of windows of T steps.

    length: symbols in all.
    rows, steps: B and T.
    tokens: a `TextTokens`.
    characters: a `TextCharacters`.
    """

    length: int
    rows: int
    steps: int
    tokens: TextTokens
    characters: TextCharacters

    @property
    def windows(self) -> int:
        """Of a row. The last window's last target is still in the text."""
        return (self.length - 1) // (self.rows * self.steps)


class Text(NamedTuple):
    """All that is text about a task, whose symbols stand for pieces of one.

    encode: a `TextEncode`.
    decode: a `TextDecode`.
    symbol: what one is: "character", "byte", "token".
    per: what bits are counted of: "character", or "byte" where there are none.
    most: how many symbols a character takes at most.
    symbols: text of each, where it has one of its own.
    train, held_out: the text itself; None where it is not here.
    written: a `TextWritten`; None where there is no tokenizer, or one that cannot be kept.
    """

    encode: TextEncode
    decode: TextDecode
    symbol: str = "character"
    per: str = "character"
    most: int = 1
    symbols: tuple[str, ...] | None = None
    train: TextPart | None = None
    held_out: TextPart | None = None
    written: TextWritten | None = None

    @staticmethod
    def by_symbols(
        symbols: tuple[str, ...], *, in_bytes: bool = False, utf8: bool = False
    ) -> "Text":
        r"""Of symbols that are characters, or bytes: those of Latin-1 with their numbers.

        Args:
          symbols: each token's text, one character. What is none of them is encoded as
            the one among them that says "unreadable" (U+FFFD, or the byte 0xFF), else
            as the first.
          in_bytes: whether bytes are meant: they are joined, then read as UTF-8; those
            that are none (a model may write some) become U+FFFD.
          utf8: whether the text is known to be UTF-8, whose characters are counted.

        >>> text = Text.by_symbols(("\ufffd", "a", "b"))
        >>> text.encode("abc"), text.decode([2, 1])
        (array([1, 2, 0], dtype=int32), 'ba')
        """
        symbols = tuple(symbols)
        longest = max(map(ord, symbols[1:]), default=0)  # the first is no byte
        return Text(
            partial(_encode, symbols, in_bytes),
            partial(_decode, symbols, in_bytes),
            symbol="byte" if in_bytes else "character",
            per="byte" if in_bytes and not utf8 else "character",
            most=1 + sum(in_bytes and longest >= b for b in (0xC0, 0xE0, 0xF0)),
            symbols=symbols,
        )


def _encode(symbols: tuple[str, ...], in_bytes: bool, text: str, /) -> np.ndarray:
    token = {symbol: i for i, symbol in enumerate(symbols)}
    if in_bytes:
        text = text.encode("utf-8", errors="replace").decode("latin-1")
    # A corpus always has a replacement; where a user's own has none, its first symbol.
    unknown = next((token[r] for r in REPLACEMENT if r in token), 0)
    return np.array([token.get(symbol, unknown) for symbol in text], np.int32)


def _decode(symbols: tuple[str, ...], in_bytes: bool, tokens, /) -> str:
    tokens, n = np.asarray(tokens), len(symbols)
    trees.refuse_outside("decode", f"tokens from 0 to {n - 1}", tokens, 0, n - 1)
    written = "".join(symbols[int(token)] for token in tokens)
    if in_bytes:
        return written.encode("latin-1").decode("utf-8", errors="replace")
    return written
