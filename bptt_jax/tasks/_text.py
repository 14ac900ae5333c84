"""Text, symbol by symbol or token by token, as truncated BPTT reads it.

The text is laid out as B rows, each a contiguous piece of it; batch i is the window
[i·T, i·T + T) of every row and its targets are the symbols one later. So the carry of a
row goes on from batch to batch (Williams and Peng 1990; Sutskever, Martens and Hinton
2011, "Generating text with recurrent neural networks"). Where an epoch begins, the state
is initialised anew.
"""

import os
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_jax import _deprecated, objectives
from bptt_jax._factory import positive, remembered
from bptt_jax.tasks._corpora import (
    Corpus,
    file_corpus,
    of_characters,
    shakespeare_corpus,
    stdlib_corpus,
)
from bptt_jax.tasks._metrics import of_symbols, with_own
from bptt_jax.tasks._tokenizers import (
    by_tokenizer,
    parts_of,
    record_of,
    size_of,
    tokens_of,
)
from bptt_jax.types import Batch, Side, Stream, Task, Text, TextPart

ROWS = 32
"""Of a batch, where nothing else is said."""
_AT_A_TIME = 2**24


class Window(NamedTuple):
    """What batches need: tokens unsigned `[n, T + 1, B]`, begins bool `[n]`."""

    tokens: np.ndarray
    begins: np.ndarray


class Windows(NamedTuple):
    """Reads windows of B rows of a text (`Stream.read`): only those it is asked for.

    text: unsigned `[N]`, in memory or memory-mapped; table: uint8 `[256]`, its tokens; None:
        it has tokens already.
    utf8: as of the `Corpus`.
    of_tokens: characters of each token, `[V]`; None: one each, or what `utf8` says.
    """

    text: np.ndarray
    table: np.ndarray | None
    batch: int
    T: int
    utf8: bool = False
    of_tokens: np.ndarray | None = None

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
        return Window(self._tokens(self.text[where]), windows == 0)

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """A `TextTokens`, unsigned."""
        return self._tokens(self.text[start:stop])

    def _tokens(self, codes: np.ndarray) -> np.ndarray:
        return codes if self.table is None else self.table[codes]

    def characters(self, start: int, n: int, every: int) -> np.ndarray:
        """A `TextCharacters`."""
        if not self.utf8 and self.of_tokens is None:
            return np.full(n, every)
        found, at_once = np.zeros(n), 1 + _AT_A_TIME // every
        for at in range(0, n, at_once):
            some, begin = min(n - at, at_once), start + at * every
            each = self._each(self.text[begin : begin + some * every])
            found[at : at + some] = each.reshape(some, every).sum(1)
        return found

    def _each(self, codes: np.ndarray) -> np.ndarray:
        """Characters of each symbol."""
        if self.of_tokens is None:
            return begins_character(codes)
        return self.of_tokens[codes].astype(float)

    def part(self) -> TextPart:
        """The text, as a task has it."""
        return TextPart(
            len(self.text), self.batch, self.T, self.tokens, self.characters
        )


def begins_character(text: np.ndarray) -> np.ndarray:
    """Of each byte of a text in UTF-8 whether a character begins there."""
    return (text & 0xC0) != 0x80


@remembered
def text(
    corpus: Corpus | str | tuple[str, str],
    *,
    batch: int | None = None,
    T: int = 64,
    tokenizer: Any = None,
    n_symbols: int | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Task:
    """A corpus as a task: predict the next symbol.

    Args:
      corpus: a text, whose last 5 % are held out; or `(training text, held-out text)`; or
        a `Corpus`, see `stdlib_corpus`, `shakespeare_corpus`, `file_corpus`.
      batch: rows, B; None: `fitting_batch`, and a warning where that is less than 32.
      T: steps of a window.
      tokenizer: an object with `encode` (text -> a list of ids, or an object with `.ids`)
        and `decode` (ids -> text), as those of tokenizers, sentencepiece and tiktoken
        are. The text is encoded some lines at a time, once, and its tokens are kept in
        memory. None: a symbol is a character, or of a file a byte.
      n_symbols: of the tokenizer; None: what its `get_vocab_size()`, `n_vocab` or
        `vocab_size` says.
      metrics: figures of one's own, told beside bits and perplexity; see `tasks.arrays`.

    Returns:
      A stateful task with int32 tokens `[T, B]`, targets `[T, B]` one symbol later and
      `resets [T, B]`, True at the first step of an epoch, under `softmax_cross_entropy`.
      The remainder that fills no window of all rows is left out. Baselines take seconds
      and are not computed here: see `ngram_baseline`.

    Raises:
      TypeError, ValueError: the text is too short, or the tokenizer lacks something or
        gives ids of symbols that are not there.

    >>> task = text("to be or not to be " * 20, batch=1, T=4)
    >>> decode(task, task.train.read(0, 1).tokens[0, :, 0])
    'to be'
    """
    sizes = dict(batch=batch, T=T, metrics=metrics)
    if tokenizer is None:
        if n_symbols is not None:
            raise ValueError("n_symbols: goes with a tokenizer, which is not given")
        if not isinstance(corpus, Corpus):
            corpus = of_characters(*parts_of(corpus), {"task": "text"})
        return _symbol_by_symbol(corpus, **sizes)
    return _token_by_token(parts_of(corpus), tokenizer, n_symbols, **sizes)


def _symbol_by_symbol(corpus: Corpus, *, batch, T, metrics) -> Task:
    in_bytes = corpus.record.get("encoding") == "bytes"
    about = Text.by_symbols(corpus.symbols, in_bytes=in_bytes, utf8=corpus.utf8)
    batch = _rows((corpus.train, corpus.held_out), batch, T)
    parts = [
        Windows(part, corpus.table, batch, T, corpus.utf8)
        for part in (corpus.train, corpus.held_out)
    ]
    found = of_symbols(f"bits per {about.per}", _of_codes(corpus))
    return _task(parts, len(corpus.symbols), about, corpus.record, found, metrics)


def _of_codes(corpus: Corpus) -> np.ndarray | None:
    """Of a byte that is folded into the replacement a character is counted."""
    if not corpus.utf8:
        return None
    return begins_character(np.array([ord(symbol) for symbol in corpus.symbols]))


def _token_by_token(
    corpus: tuple[str, str], tokenizer: Any, n_symbols, *, batch, T, metrics
) -> Task:
    about = by_tokenizer(tokenizer, n_symbols=n_symbols)
    n = size_of(tokenizer, n_symbols)
    train, held_out = (tokens_of(part, tokenizer, n) for part in corpus)
    batch = _rows((train.ids, held_out.ids), batch, T)
    parts = [
        Windows(part.ids, None, batch, T, of_tokens=part.characters)
        for part in (train, held_out)
    ]
    found = of_symbols(f"bits per {about.per}", held_out.characters)
    record = record_of(tokenizer, n, (train, held_out))
    return _task(parts, n, about, record, found, metrics)


def _rows(parts: tuple[np.ndarray, np.ndarray], batch: int | None, T: int) -> int:
    """Rows of a batch, which both parts fill."""
    if batch is None:
        positive(T=T)
        batch = _fitting(parts, T)
        if batch < ROWS:
            warnings.warn(
                f"batches of {batch} sequences: the text is too short for {ROWS}",
                stacklevel=5,
            )
    positive(batch=batch, T=T)
    for part, symbols in zip(("training", "held-out"), parts, strict=True):
        if len(symbols) < batch * (T + 1):
            raise ValueError(
                f"text too short: the {part} part has {len(symbols)} symbols, expected "
                f"at least batch·(T + 1) = {batch}·({T} + 1) = {batch * (T + 1)}"
            )
    return batch


def _task(parts, n: int, about: Text, record: dict, found: dict, metrics) -> Task:
    train, held_out = parts
    return Task(
        n_in=n,
        n_out=n,
        objective=objectives.softmax_cross_entropy,
        train=Stream(train, _batch, train.length),
        held_out=Stream(held_out, _batch, held_out.length),
        tokens=True,
        stateful=True,
        text=about._replace(train=train.part(), held_out=held_out.part()),
        record=record,
        metrics=with_own(found, metrics),
    )


def fitting_batch(corpus: Corpus, T: int = 64) -> int:
    """The most of 32, 16, 8, …, 1 rows that windows of T steps of a text fill.

    >>> letters = np.zeros(300, np.uint8)
    >>> fitting_batch(Corpus(letters, letters, letters, ("a",), {}), T=64)
    4
    """
    return _fitting((corpus.train, corpus.held_out), T)


def _fitting(parts: tuple[np.ndarray, np.ndarray], T: int) -> int:
    symbols, batch = min(map(len, parts)), ROWS
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
    return f"bits per {text_of(task).per}"


def bits(part: TextPart | Stream, losses, first: int = 0) -> float:
    """Total bits over characters, from losses in nats per symbol.

    A model over the bytes of a text in UTF-8 needs several symbols for a character, one
    over a tokenizer's tokens less than one.

    Args:
      part: `Task.text.train` or `Task.text.held_out`.
      losses: `[n]`, of the windows first, …, first + n - 1: each a mean over its steps, as
        training tells it.
      first: the position of the first of them; 0: evaluations begin there.

    Returns:
      Bits per character, or per byte, see `bits_unit`.

    >>> task = stdlib(batch=8, T=32)
    >>> round(bits(task.text.held_out, [np.log(2), np.log(8)]), 6)
    2.0
    """
    total, characters = _total_bits(_part(part, "bits"), losses, first)
    return float(total.sum() / max(characters.sum(), 1))


def bits_each(part: TextPart | Stream, losses, first: int = 0) -> np.ndarray:
    """`bits` of each of the windows by itself, `[n]`, as a curve has them."""
    total, characters = _total_bits(_part(part, "bits_each"), losses, first)
    return total / np.maximum(characters, 1)


def _total_bits(part: TextPart, losses, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each window its bits and its characters, `[n]`."""
    losses = np.asarray(losses, float)
    total = losses * part.rows * part.steps / np.log(2)
    return total, _characters(part, first, len(losses))


def _characters(part: TextPart, first: int, n: int) -> np.ndarray:
    """How many characters the targets of each of these windows are, `[n]`."""
    found, at = np.zeros(n), 0
    while at < n:  # a row's windows lie side by side, up to its end
        window = (first + at) % part.windows
        some = min(n - at, part.windows - window)
        for row in range(part.rows):
            start = (row * part.windows + window) * part.steps + 1
            found[at : at + some] += part.characters(start, some, part.steps)
        at += some
    return found


def symbols_per_character(task: Task) -> int:
    """The most symbols that a character of the task's text may take."""
    return text_of(task).most


def decode(task: Task, tokens) -> str:
    """The text of tokens `[N]`: `Task.text.decode`.

    Raises:
      ValueError: the task has no text, or a token is no symbol's, -1 included.
    """
    return text_of(task).decode(tokens)


def encode(task: Task, text: str) -> np.ndarray:
    """The tokens of a text, int32 `[N]`: `Task.text.encode`.

    Where the symbols are characters or bytes, what is none of them becomes the replacement.
    """
    return text_of(task).encode(text)


def text_of(task: Task) -> Text:
    """`Task.text` of one that has it."""
    if task.text is None:
        raise ValueError("expected a task with text (its symbols), got one without")
    return task.text


def _part(part: TextPart | Stream, of: str) -> TextPart:
    if isinstance(part, TextPart):
        return part
    read = getattr(part, "read", None)
    if not isinstance(read, Windows):
        raise ValueError(
            f"{of}: expected the part of a text task, as task.text.held_out is, got another"
        )
    _deprecated.warn(
        f"tasks.{of}(a stream)",
        f"tasks.{of}(task.text.held_out)",
        gone="0.3.0",
        level=2,
    )
    return read.part()


def _batch(item: Window, key) -> Batch:
    del key
    tokens = item.tokens.astype(jnp.int32)
    T, batch = tokens.shape[0] - 1, tokens.shape[1]
    first = jnp.broadcast_to(jnp.arange(T)[:, None] == 0, (T, batch))
    return Batch(tokens[:-1], Side(resets=first & item.begins, targets=tokens[1:]))
