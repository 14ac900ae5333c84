"""Text, symbol by symbol, as truncated BPTT reads it.

The text is laid out as B rows, each a contiguous piece of it; batch i is the window
[i·T, i·T + T) of every row and its targets are the symbols one later. So the carry of a
row goes on from batch to batch (Williams and Peng 1990; Sutskever, Martens and Hinton
2011, "Generating text with recurrent neural networks"). Where an epoch begins, the state
is initialised anew.
"""

import os
import warnings
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_jax import _pytrees as trees
from bptt_jax import objectives
from bptt_jax._factory import positive, remembered
from bptt_jax.tasks._corpora import (
    REPLACEMENT,
    Corpus,
    file_corpus,
    shakespeare_corpus,
    stdlib_corpus,
)
from bptt_jax.types import Batch, Side, Stream, Task

ROWS = 32
"""Of a batch, where nothing else is said."""
_AT_A_TIME = 2**24


class Window(NamedTuple):
    """What batches need: tokens uint8 `[n, T + 1, B]`, begins bool `[n]`."""

    tokens: np.ndarray
    begins: np.ndarray


class Windows(NamedTuple):
    """Reads windows of B rows of a text (`Stream.read`): only those it is asked for.

    text: uint8 `[N]`, in memory or memory-mapped; table: uint8 `[256]`, its tokens.
    utf8: as of the `Corpus`.
    """

    text: np.ndarray
    table: np.ndarray
    batch: int
    T: int
    utf8: bool = False

    @property
    def length(self) -> int:
        """Windows in a row. The last window's last target is still in the text."""
        return (len(self.text) - 1) // (self.batch * self.T)

    def __call__(self, first: int, n: int) -> Window:
        """The windows first, …, first + n - 1; the text begins anew where it ends."""
        windows = np.arange(first, first + n) % self.length
        rows = np.arange(self.batch) * (self.length * self.T)
        steps = np.arange(self.T + 1)[:, None]
        where = windows[:, None, None] * self.T + steps + rows
        return Window(self.table[self.text[where]], windows == 0)

    def tokens(self, at_most: int) -> np.ndarray:
        """The beginning of the text, uint8."""
        return self.table[self.text[:at_most]]

    def characters(self, first: int, n: int) -> np.ndarray:
        """How many characters the targets of each of these windows are, int64 `[n]`."""
        if not self.utf8:
            return np.full(n, self.batch * self.T)
        found, at = np.zeros(n, np.int64), 0
        while at < n:  # a row's windows lie side by side, up to its end
            window = (first + at) % self.length
            some = min(n - at, self.length - window, 1 + _AT_A_TIME // self.T)
            for row in range(self.batch):
                start = (row * self.length + window) * self.T + 1
                piece = begins_character(self.text[start : start + some * self.T])
                found[at : at + some] += piece.reshape(some, self.T).sum(1)
            at += some
        return found


def begins_character(text: np.ndarray) -> np.ndarray:
    """Of each byte of a text in UTF-8 whether a character begins there."""
    return (text & 0xC0) != 0x80


@remembered
def text(corpus: Corpus, *, batch: int | None = None, T: int = 64) -> Task:
    """A corpus as a task: predict the next symbol.

    Args:
      corpus: see `stdlib_corpus`, `shakespeare_corpus`, `file_corpus`.
      batch: rows, B; None: `fitting_batch`, and a warning where that is less than 32.
      T: steps of a window.

    Returns:
      A stateful task with int32 tokens `[T, B]`, targets `[T, B]` one symbol later and
      `resets [T, B]`, True at the first step of an epoch, under `softmax_cross_entropy`.
      The remainder that fills no window of all rows is left out. Baselines take seconds
      and are not computed here: see `ngram_baseline`.

    Raises:
      ValueError: the text is too short.

    >>> import numpy as np
    >>> letters = np.tile(np.arange(3, dtype=np.uint8), 20)
    >>> abc = Corpus(letters, letters, np.arange(256, dtype=np.uint8), ("a", "b", "c"), {})
    >>> task = text(abc, batch=2, T=4)
    >>> decode(task, task.train.read(0, 1).tokens[0, :, 0])
    'abcab'
    """
    if batch is None:
        positive(T=T)
        batch = fitting_batch(corpus, T)
        if batch < ROWS:
            warnings.warn(
                f"batches of {batch} sequences: the text is too short for {ROWS}",
                stacklevel=2,
            )
    positive(batch=batch, T=T)
    parts = {"training": corpus.train, "held-out": corpus.held_out}
    for part, symbols in parts.items():
        if len(symbols) < batch * (T + 1):
            raise ValueError(
                f"text too short: the {part} part has {len(symbols)} symbols, expected "
                f"at least batch·(T + 1) = {batch}·({T} + 1) = {batch * (T + 1)}"
            )
    train, held_out = (
        Windows(part, corpus.table, batch, T, corpus.utf8)
        for part in (corpus.train, corpus.held_out)
    )
    return Task(
        n_in=len(corpus.symbols),
        n_out=len(corpus.symbols),
        objective=objectives.softmax_cross_entropy,
        train=Stream(train, _batch, train.length),
        held_out=Stream(held_out, _batch, held_out.length),
        tokens=True,
        stateful=True,
        symbols=corpus.symbols,
        record=corpus.record,
    )


def fitting_batch(corpus: Corpus, T: int = 64) -> int:
    """The most of 32, 16, 8, …, 1 rows that windows of T steps of a text fill.

    >>> letters = np.zeros(300, np.uint8)
    >>> fitting_batch(Corpus(letters, letters, letters, ("a",), {}), T=64)
    4
    """
    symbols = min(len(corpus.train), len(corpus.held_out))
    batch = ROWS
    while batch > 1 and symbols < batch * (T + 1):
        batch //= 2
    return batch


@remembered
def stdlib(*, batch: int = 32, T: int = 64) -> Task:
    """The source of the Python standard library that runs this program, as a task.

    See `text` and `stdlib_corpus`. Always there: about 10 million characters.

    >>> task = stdlib(batch=8, T=32)
    >>> decode(task, encode(task, "import this"))
    'import this'
    """
    return text(stdlib_corpus(), batch=batch, T=T)


@remembered
def shakespeare(*, batch: int = 32, T: int = 64) -> Task:
    """The plays of Shakespeare, as a task. See `text` and `shakespeare_corpus`.

    >>> task = shakespeare(batch=8, T=32)  # doctest: +SKIP
    """
    return text(shakespeare_corpus(), batch=batch, T=T)


@remembered
def text_file(
    path: str | os.PathLike, *, batch: int | None = None, T: int = 64
) -> Task:
    """A file of any size, byte by byte, as a task. See `text` and `file_corpus`.

    >>> task = text_file("a_book.txt", batch=8, T=32)  # doctest: +SKIP
    """
    return text(file_corpus(path), batch=batch, T=T)


def bits_unit(task: Task) -> str:
    """What `bits` of a text task are of: "bits per character", or "bits per byte".

    The bytes of a file in UTF-8 are counted as its characters; those of any other file
    are bytes.
    """
    windows = _windows(task.train)
    return f"bits per {'byte' if _in_bytes(task) and not windows.utf8 else 'character'}"


def bits(stream: Stream, losses, first: int = 0) -> float:
    """Total bits over characters, from losses in nats per symbol.

    A model over the bytes of a text in UTF-8 needs several symbols for a character.

    Args:
      stream: `train` or `held_out` of a text task.
      losses: `[n]`, of the windows first, …, first + n - 1: each a mean over its steps, as
        training tells it.
      first: the position of the first of them; 0: evaluations begin there.

    Returns:
      Bits per character, or per byte, see `bits_unit`.

    >>> task = stdlib(batch=8, T=32)
    >>> round(bits(task.held_out, [np.log(2), np.log(8)]), 6)
    2.0
    """
    total, characters = _total_bits(stream, losses, first)
    return float(total.sum() / max(characters.sum(), 1))


def bits_each(stream: Stream, losses, first: int = 0) -> np.ndarray:
    """`bits` of each of the windows by itself, `[n]`, as a curve has them."""
    total, characters = _total_bits(stream, losses, first)
    return total / np.maximum(characters, 1)


def _total_bits(stream: Stream, losses, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each window its bits and its characters, `[n]`."""
    windows, losses = _windows(stream), np.asarray(losses, float)
    total = losses * windows.batch * windows.T / np.log(2)
    return total, windows.characters(first, len(losses))


def symbols_per_character(task: Task) -> int:
    """The most symbols that a character of the task's text may take."""
    if not _in_bytes(task):
        return 1
    longest = max(map(ord, _symbols(task)[1:]), default=0)  # the first is no byte
    return 1 + sum(longest >= begin for begin in (0xC0, 0xE0, 0xF0))


def _windows(stream: Stream) -> Windows:
    if not isinstance(stream.read, Windows):
        raise ValueError("expected the stream of a text task, got another")
    return stream.read


def decode(task: Task, tokens) -> str:
    """The text of tokens `[N]`. Symbols that are bytes are joined, then read as UTF-8.

    Bytes that are no UTF-8 (a model may write some) become U+FFFD.

    Raises:
      ValueError: a token is no symbol's, -1 included.
    """
    symbols, tokens = _symbols(task), np.asarray(tokens)
    n = len(symbols)
    trees.refuse_outside("decode", f"tokens from 0 to {n - 1}", tokens, 0, n - 1)
    written = "".join(symbols[int(token)] for token in tokens)
    if _in_bytes(task):
        return written.encode("latin-1").decode("utf-8", errors="replace")
    return written


def encode(task: Task, text: str) -> np.ndarray:
    """The tokens of a text, int32 `[N]`; what is no symbol becomes the replacement.

    Where the symbols are bytes, the text's UTF-8 bytes are meant.
    """
    token = {symbol: i for i, symbol in enumerate(_symbols(task))}
    if _in_bytes(task):
        text = text.encode("utf-8", errors="replace").decode("latin-1")
    # A corpus always has a replacement; where a user's own has none, its first symbol.
    unknown = next((token[r] for r in REPLACEMENT if r in token), 0)
    return np.array([token.get(symbol, unknown) for symbol in text], np.int32)


def _batch(item: Window, key) -> Batch:
    del key
    tokens = item.tokens.astype(jnp.int32)
    T, batch = tokens.shape[0] - 1, tokens.shape[1]
    first = jnp.broadcast_to(jnp.arange(T)[:, None] == 0, (T, batch))
    return Batch(tokens[:-1], Side(resets=first & item.begins, targets=tokens[1:]))


def _symbols(task: Task) -> tuple:
    if task.symbols is None:
        raise ValueError("expected a task with symbols (text), got one without")
    return task.symbols


def _in_bytes(task: Task) -> bool:
    return task.record.get("encoding") == "bytes"
