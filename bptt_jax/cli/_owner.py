"""The folder of a run or a sweep belongs to one command at a time."""

import contextlib
import pathlib
import sys

from bptt_jax import _files


def owned(out: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Inside, no other process has the folder; see `_files.locked`."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose another --out")
    return _files.locked(out, lambda text: print(f"bptt-jax: {text}", file=sys.stderr))
