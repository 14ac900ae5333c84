"""Machine code between processes: a file a kernel, in a folder that is ours alone.

Code that is read is run, so nothing is taken from a folder or a file that somebody else owns or
may write to. A file is its own check: what is damaged or of another version is made again.
"""

import contextlib
import hashlib
import os
import pathlib
import stat

from bptt_jax import _files

MAGIC = b"bptt_jax native 1\n"


def folder() -> pathlib.Path | None:
    """Where kernels are kept; None: nowhere."""
    if not hasattr(os, "getuid"):
        return None
    found = _files.cache_folder()
    if found is None:
        return None
    found = found / "native"
    with contextlib.suppress(OSError):
        found.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_ours(found):
            return found
    return None


def read(name: str) -> bytes | None:
    """The code of a kernel; None where there is none that can be trusted."""
    where = folder()
    if where is None:
        return None
    path = where / f"{name}.o"
    try:
        if not _is_ours(path):
            return None
        found = path.read_bytes()
    except OSError:
        return None
    head, code = found[: len(_head(name, b""))], found[len(_head(name, b"")) :]
    return code if code and head == _head(name, code) else None


def write(name: str, code: bytes) -> None:
    """Keeps the code of a kernel, where that can be."""
    where = folder()
    if where is None:
        return

    def private(path: pathlib.Path) -> None:
        path.touch(mode=0o600)
        path.write_bytes(_head(name, code) + code)

    with contextlib.suppress(OSError):
        _files.replace(where / f"{name}.o", private)


def _head(name: str, code: bytes) -> bytes:
    return MAGIC + hashlib.sha256(name.encode() + code).digest()


def _is_ours(path: pathlib.Path) -> bool:
    """Whether nobody else owns it or may write to it; links are nobody's."""
    found = path.lstat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return (
        not stat.S_ISLNK(found.st_mode)
        and found.st_uid == os.getuid()
        and not found.st_mode & others
    )
