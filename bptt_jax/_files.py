"""Files: written aside and renamed, lines that can be read, one owner a folder, the cache.

What `replace` and `create` write is complete or not there, whenever the process ends.
"""

import contextlib
import datetime
import errno
import functools
import json
import os
import pathlib
import re
import secrets
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from bptt_jax._processes import first

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None


def path_of(out: Any) -> pathlib.Path:
    """The path of a folder that was given as text or as a path; anything else is refused."""
    try:
        return pathlib.Path(out)
    except TypeError:
        raise TypeError(
            f"out: expected a path of a folder, got {type(out).__name__}"
        ) from None


# Writing


def replace(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
    """`write(new)` writes a file beside `path`, which then takes its place.

    Where `write` fails (a full disk) the former file stays as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _aside(path) as new:
        with naming(path, new):
            write(new)
        new.replace(path)


def create(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
    """As `replace`, but never in the place of something else.

    Raises:
      FileExistsError: something has that name by now.
    """
    with _aside(path) as new:
        with naming(path, new):
            write(new)
        try:
            os.link(new, path)  # unlike a renaming it overwrites nothing
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            new.replace(path)


def replace_text(path: pathlib.Path, text: str) -> None:
    replace(path, lambda new: new.write_text(text, encoding="utf-8"))


def replace_json(path: pathlib.Path, what: Any) -> None:
    replace_text(path, json.dumps(what, indent=1) + "\n")


def append(path: pathlib.Path, lines: Iterable[dict[str, Any]]) -> None:
    """Writes JSON lines behind those that are there."""
    with naming(path), path.open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG
"""What the system says where there is no room for more."""


@contextlib.contextmanager
def naming(path: pathlib.Path, *aside: pathlib.Path) -> Iterator[None]:
    """Where a file cannot be written, the error is the system's own, and names it.

    The system names no file where a disk is full, and formats (orbax, safetensors) have
    errors of their own for that.

    Args:
      path: what the user knows of.
      aside: what is written in its place meanwhile.
    """
    try:
        yield
    except Exception as error:  # formats raise whatever they have
        code = _code(error, aside)
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(path)) from error


def _code(error: Exception, aside: Iterable[pathlib.Path]) -> int | None:
    """The system's number of an error that names no file, or the wrong one."""
    if isinstance(error, OSError) and error.errno is not None:
        nameless = error.filename is None or str(error.filename) in map(str, aside)
        return error.errno if nameless or error.errno in FULL else None
    said = "\n".join(map(str, _causes(error)))
    return next((code for code in FULL if os.strerror(code) in said), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_left_over(path: pathlib.Path) -> bool:
    """Whether a process that was killed has left this: a file half written, or its lock."""
    return bool(re.search(r"\.[0-9a-f]{8}\.new$", path.name)) or path.name == _LOCK


@contextlib.contextmanager
def _aside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A name of its own for each writer: caches have many, on machines that share one."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        yield new
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


# JSON lines


class Lines(NamedTuple):
    """What a file of JSON lines holds.

    objects: of all lines that hold one.
    damaged: number (from 1) and bytes of the lines that hold none and are not empty.
    cut: bytes behind the last newline that are no object: a process was killed there.
    """

    objects: list[dict[str, Any]]
    damaged: list[tuple[int, bytes]]
    cut: bytes


def read_lines(
    path: pathlib.Path, is_one: Callable[[dict[str, Any]], bool] = lambda found: True
) -> Lines:
    """Each line of a file by itself: one that cannot be read costs no other.

    Args:
      path: of the file; where there is none there are no lines.
      is_one: whether an object is what the file is of.
    """
    if not path.exists():
        return Lines([], [], b"")
    objects: list[dict[str, Any]] = []
    damaged: list[tuple[int, bytes]] = []
    *whole, rest = path.read_bytes().split(b"\n")
    for number, line in enumerate([*whole, rest], 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            fits = isinstance(found, dict) and is_one(found)
        except (ValueError, RecursionError):
            fits, found = False, {}
        if fits:
            objects.append(found)
        else:
            damaged.append((number, line))
    cut = rest.strip() and damaged and damaged[-1][0] == len(whole) + 1
    return Lines(objects, damaged[:-1], rest) if cut else Lines(objects, damaged, b"")


def set_aside(path: pathlib.Path, damaged: list[tuple[int, bytes]]) -> pathlib.Path:
    """Keeps lines that could not be read in a file beside; gives its path."""
    beside = path.with_name(f"{path.name}.damaged")
    with naming(beside), beside.open("ab") as file:
        file.write(b"".join(line + b"\n" for _, line in damaged))
    return beside


# One owner a folder


class _Held(NamedTuple):
    """A lock of this process. thread: that took it; made: folders it was taken in."""

    descriptor: int
    thread: threading.Thread
    made: list[pathlib.Path]


_held: dict[pathlib.Path, _Held] = {}
_LOCK = ".bptt_jax.lock"
_BUSY = errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES


@contextlib.contextmanager
def locked(
    folder: pathlib.Path, say: Callable[[str], Any] = warnings.warn
) -> Iterator[None]:
    """Inside, no other process is, for this folder; it is made where it is missing.

    The kernel holds the lock (`flock` on the file `.bptt_jax.lock`) and releases it when
    the process ends, however it ends. Of several processes of one program
    (`jax.distributed`) the first one takes it. Taken again by the thread that has it,
    it is the same lock. A child has it neither after fork nor after exec. On a shared
    file system it holds between machines where that has `flock` between them.

    What this has made and nobody has filled is taken away at the end.

    Args:
      folder: what is to have one owner.
      say: is told where the file system has no locks; nothing is held then.

    Raises:
      ValueError: another process has it, or another thread, or it is no folder; nothing
        has been changed.
    """
    if not first():
        yield
        return
    path = pathlib.Path(os.path.realpath(folder)) / _LOCK
    there = _held.get(path)
    if there is not None and there.thread is threading.current_thread():
        yield
        return
    if there is not None and there.thread.is_alive():
        raise ValueError(
            f"{folder} is in use by another thread of this process; wait for it or "
            "choose another folder"
        )
    if there is None:
        _held[path] = _take(folder, path, say)
    else:  # of a thread that has ended without giving it back
        _held[path] = there._replace(thread=threading.current_thread())
    try:
        yield
    finally:
        _give_back(path)


def _take(folder: pathlib.Path, path: pathlib.Path, say: Callable) -> _Held:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another folder")
    made: list[pathlib.Path] = []
    while True:
        made += [p for p in (path.parent, *path.parent.parents) if not p.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another has just taken away what it had made
            continue
        held = _Held(descriptor, threading.current_thread(), made)
        try:
            _flock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno in _BUSY:
                raise ValueError(
                    f"{folder} is in use by {_owner(path)}; wait for it or choose "
                    "another folder"
                ) from None
            say(
                f"{folder} cannot be locked ({error.strerror}): that two processes "
                "write there would not be noticed"
            )
            path.unlink(missing_ok=True)
            return held._replace(descriptor=-1)
        if _is_at(descriptor, path):
            with contextlib.suppress(OSError):  # a full disk: who it is stays unknown
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(_me()).encode() + b"\n")
            return held
        os.close(descriptor)  # the owner before took the file away: it is another's now


def _flock(descriptor: int) -> None:
    if fcntl is None:
        raise OSError(errno.ENOSYS, "no flock on this system")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _me() -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds")
    return dict(pid=os.getpid(), host=socket.gethostname(), since=now)


def _owner(path: pathlib.Path) -> str:
    """Who has the lock, as it says itself in the first moments of having it."""
    for _ in range(20):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            owner = json.loads(path.read_text())
            return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
        time.sleep(0.01)
    return "another process"


def _give_back(path: pathlib.Path) -> None:
    held = _held.pop(path, None)
    if held is None:  # after a fork the parent has it
        return
    if held.descriptor >= 0:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # before it is free: then it may be another's
        os.close(held.descriptor)
    for folder in held.made:
        with contextlib.suppress(OSError):  # somebody has filled it
            folder.rmdir()


def _forget() -> None:
    """In a forked child: it has the descriptors, and must not keep them."""
    for held in _held.values():
        if held.descriptor >= 0:
            os.close(held.descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


# What is remembered between programs


def cache_folder() -> pathlib.Path | None:
    """`bptt_jax` in `$XDG_CACHE_HOME` or `~/.cache`; None for one without a home."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = pathlib.Path(home) / "bptt_jax"
    return folder if folder.is_absolute() else None


def remember(path: pathlib.Path | None, what: Any) -> None:
    """Writes JSON for other programs; where it cannot, they find it out again."""
    if path is not None:
        with contextlib.suppress(OSError):
            replace_text(path, json.dumps(what))


def remembered(path: pathlib.Path | None) -> dict[str, Any]:
    """What `remember` wrote; nothing where that cannot be read."""
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# Complex numbers, in safetensors files

COMPLEX = "bptt_jax.complex"
"""Metadata of a safetensors file: names of the arrays that are stored as two, in JSON."""


def apart(named: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays as safetensors can hold them, and the metadata that `together` needs.

    Raises:
      ValueError: a name that is needed is taken.
    """
    arrays, pairs = {}, []
    for name, a in named.items():
        if not np.iscomplexobj(a) or _is_held(a.dtype):
            arrays[name] = a
            continue
        pairs.append(name)
        for part in ("real", "imag"):
            if f"{name}.{part}" in named:
                raise ValueError(f"{name}.{part}: also the name of a part of {name}")
            arrays[f"{name}.{part}"] = np.array(getattr(a, part), order="C")
    return arrays, {COMPLEX: json.dumps(pairs)} if pairs else {}


@functools.cache
def _is_held(dtype: np.dtype) -> bool:
    """Whether the safetensors that is installed has a dtype."""
    try:
        safetensors.numpy.save({"a": np.zeros(0, dtype)})
    except Exception:  # each version raises its own
        return False
    return True


def joined(real: np.ndarray, imag: np.ndarray) -> np.ndarray:
    """Complex numbers of two parts, bit for bit (1j · NaN is another number)."""
    found = np.empty(real.shape, np.result_type(real.dtype, np.complex64))
    found.real, found.imag = real, imag
    return found


def together(
    named: dict[str, Any], about: dict[str, str], join: Callable = joined
) -> tuple[dict[str, Any], dict[str, str]]:
    """The inverse of `apart`, metadata of others left as they are.

    Raises:
      ValueError: the metadata tell of arrays that are not there.
    """
    named, about = dict(named), dict(about)
    said = about.pop(COMPLEX, "[]")
    try:
        for name in json.loads(said):
            named[name] = join(named.pop(f"{name}.real"), named.pop(f"{name}.imag"))
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{COMPLEX} {said!r:.80}: damaged ({error})") from None
    return named, about
