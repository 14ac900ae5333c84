"""Text by somebody's tokenizer: any object with `encode` and `decode`.

Hugging Face's tokenizers, sentencepiece's processors and tiktoken's encodings are such; none
of them is imported but to read one that was kept in a run's folder.

How many characters a token is, which bits are counted of, is asked of `decode`. Pieces of a
character (bytes) count alike, so many that the characters of a text are all its tokens'.
"""

import hashlib
import importlib
import os
import pathlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bptt_jax import _pytrees as trees
from bptt_jax._factory import is_whole, positive
from bptt_jax.tasks._corpora import Corpus
from bptt_jax.types import Text

_AT_ONCE = 2**16
"""Characters that are encoded in one call, about; it ends where a line does."""
_MOST = 4
"""Tokens that a character takes at most: its bytes."""
_PIECE = "\ufffd"
JSON, MODEL = "tokenizer.json", "tokenizer.model"


class Tokens(NamedTuple):
    """A part of a text in a tokenizer's tokens.

    ids: unsigned, as small as they may be, `[N]`.
    characters: float32 `[V]`, how many of the text each of them is.
    """

    ids: np.ndarray
    characters: np.ndarray


def by_tokenizer(tokenizer: Any, *, n_symbols: int | None = None) -> Text:
    """The text of a task whose symbols are a tokenizer's, without a corpus.

    Args:
      tokenizer: has `encode`, text -> a list of ids or an object with `.ids`, and `decode`,
        a list of ids -> text.
      n_symbols: how many symbols there are; None: what its `get_vocab_size()`, `n_vocab` or
        `vocab_size` says.

    Returns:
      A `Text` that is written by it. `Text.written` is None where the tokenizer has no form
      that it can be read again from (tiktoken).

    Raises:
      TypeError, ValueError: it lacks one of these.

    >>> class Letters:
    ...     n_vocab = 256
    ...     def encode(self, text): return list(text.encode())
    ...     def decode(self, ids): return bytes(ids).decode()
    >>> text = by_tokenizer(Letters())
    >>> text.encode("ab"), text.decode([97]), text.symbol
    (array([97, 98], dtype=int32), 'a', 'token')
    """
    n = size_of(tokenizer, n_symbols)
    return Text(
        partial(_encode, tokenizer, n),
        partial(_decode, tokenizer, n),
        symbol="token",
        most=_MOST,
        written=_writer(tokenizer),
    )


def size_of(tokenizer: Any, n_symbols: int | None) -> int:
    """How many symbols there are, of what can encode and decode."""
    for name in ("encode", "decode"):
        if not callable(getattr(tokenizer, name, None)):
            raise TypeError(
                "tokenizer: expected an object with encode and decode, got "
                f"{type(tokenizer).__name__} without {name}"
            )
    if n_symbols is not None:
        positive(n_symbols=n_symbols)
        return int(n_symbols)
    for name in ("get_vocab_size", "n_vocab", "vocab_size"):
        said = getattr(tokenizer, name, None)
        said = said() if callable(said) else said
        if is_whole(said) and said > 0:
            return int(said)
    raise ValueError(
        f"tokenizer: {type(tokenizer).__name__} says by none of get_vocab_size(), n_vocab, "
        "vocab_size how many symbols there are; give n_symbols="
    )


def parts_of(corpus: Corpus | str | tuple[str, str]) -> tuple[str, str]:
    """The text that is trained on, and the one that is held out."""
    if isinstance(corpus, Corpus):
        train, held_out = (_written(corpus, p) for p in corpus[:2])
        return train, held_out
    if isinstance(corpus, str):
        cut = len(corpus) * 19 // 20
        corpus = corpus[:cut], corpus[cut:]
    pair = isinstance(corpus, tuple | list) and len(corpus) == 2
    if not pair or not all(isinstance(part, str) for part in corpus):
        raise TypeError(
            "corpus: expected a text, (training text, held-out text) or a tasks.Corpus, got "
            f"{type(corpus).__name__}"
        )
    if not any(corpus):
        raise ValueError("corpus: expected some text, got none (it is empty)")
    return corpus[0], corpus[1]


def _written(corpus: Corpus, part: np.ndarray) -> str:
    if corpus.record.get("encoding") == "bytes":
        return part.tobytes().decode("utf-8", errors="replace")
    codes = np.array([ord(symbol) for symbol in corpus.symbols], np.uint32)
    return codes[corpus.table[part]].tobytes().decode("utf-32-le")


def tokens_of(text: str, tokenizer: Any, n: int) -> Tokens:
    """A text in tokens, and the characters of each of them."""
    kind = np.min_scalar_type(n - 1)
    each = [ids_of(piece, tokenizer, n).astype(kind) for piece in stretches(text)]
    ids = np.concatenate(each) if each else np.zeros(0, kind)
    return Tokens(ids, _characters(len(text), ids, tokenizer, n))


def stretches(text: str, most: int = _AT_ONCE) -> Iterator[str]:
    """A text in pieces that end with a line, else before a space, else anywhere."""
    at = 0
    while at < len(text):
        end = at + most
        if end < len(text):
            line, space = text.rfind("\n", at, end), text.rfind(" ", at + 1, end)
            end = line + 1 if line >= 0 else space if space >= 0 else end
        yield text[at:end]
        at = end


def ids_of(text: str, tokenizer: Any, n: int) -> np.ndarray:
    """int32 `[N]`.

    Raises:
      TypeError, ValueError: what it gives are no ids from 0 to n - 1.
    """
    found = tokenizer.encode(text)
    found = getattr(found, "ids", found)
    ids = np.asarray(found if len(found) else np.zeros(0, int))
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise TypeError(
            "tokenizer.encode: expected a list of ids, or an object with ids, got "
            f"{type(found).__name__} of {ids.dtype}"
        )
    expected = f"ids from 0 to {n - 1} (n_symbols = {n})"
    trees.refuse_outside("tokenizer.encode", expected, ids, 0, n - 1)
    return ids.astype(np.int32)


def _characters(total: int, ids: np.ndarray, tokenizer: Any, n: int) -> np.ndarray:
    times = np.bincount(ids, minlength=n)
    before = ids_of("a", tokenizer, n).tolist()  # text may be stripped where it begins
    begin = len(tokenizer.decode(before))
    found, pieces = np.zeros(n), np.zeros(n, bool)
    for token in np.flatnonzero(times).tolist():
        text = tokenizer.decode([*before, token])
        found[token] = len(text) - begin
        pieces[token] = _PIECE in text
    found = np.maximum(found, 0)
    if of_pieces := times[pieces].sum():
        rest = total - (times * found)[~pieces].sum()
        found[pieces] = max(rest, 0) / of_pieces
    if counted := (
        times * found
    ).sum():  # what it does not give back has characters, too
        found *= total / counted
    return found.astype(np.float32)


def record_of(tokenizer: Any, n: int, parts: tuple[Tokens, Tokens]) -> dict[str, Any]:
    """What identifies the data."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(f"{part.ids.dtype}{len(part.ids)}".encode())
        sha256.update(part.ids.tobytes())
    kind = type(tokenizer).__name__
    return dict(task="text", tokenizer=kind, symbols=n, sha256=sha256.hexdigest())


def _encode(tokenizer: Any, n: int, text: str, /) -> np.ndarray:
    return ids_of(text, tokenizer, n)


def _decode(tokenizer: Any, n: int, tokens, /) -> str:
    tokens = np.asarray(tokens)
    trees.refuse_outside("decode", f"tokens from 0 to {n - 1}", tokens, 0, n - 1)
    return tokenizer.decode(tokens.astype(int).tolist())


# Kept beside a run


def _writer(tokenizer: Any) -> Callable[[], tuple[str, bytes]] | None:
    if callable(getattr(tokenizer, "to_str", None)):
        return partial(_as_json, tokenizer)
    if callable(getattr(tokenizer, "serialized_model_proto", None)):
        return partial(_as_model, tokenizer)
    return None


def _as_json(tokenizer: Any) -> tuple[str, bytes]:
    return JSON, tokenizer.to_str().encode()


def _as_model(tokenizer: Any) -> tuple[str, bytes]:
    return MODEL, tokenizer.serialized_model_proto()


def read_tokenizer(folder: str | os.PathLike) -> Any | None:
    """The tokenizer that a run's folder holds; None where it holds none.

    A `tokenizer.json` is read by Hugging Face's tokenizers, a `tokenizer.model` by
    sentencepiece: both are data. Another tokenizer was not kept: give it yourself, to
    `by_tokenizer`.

    Raises:
      ModuleNotFoundError: the library that reads it is not installed.
      ValueError: the file is damaged.

    >>> read_tokenizer("runs/mine")  # doctest: +SKIP
    """
    for name, library, read in (
        (JSON, "tokenizers", lambda of, data: of.Tokenizer.from_str(data.decode())),
        (
            MODEL,
            "sentencepiece",
            lambda of, data: of.SentencePieceProcessor(model_proto=data),
        ),
    ):
        path = pathlib.Path(folder) / name
        if path.exists():
            return _read(path, library, read)
    return None


def _read(path: pathlib.Path, library: str, read: Callable) -> Any:
    try:
        of = importlib.import_module(library)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} is read by {library}: pip install {library}"
        ) from None
    try:
        return read(of, path.read_bytes())
    except OSError:
        raise
    except Exception as error:  # each library has its own
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"{path} is damaged ({reason})") from None
