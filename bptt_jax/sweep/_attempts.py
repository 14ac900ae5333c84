"""Where a worker saves a group that is running, so that another one can go on with it.

A group's folder has a file for each attempt at it. No attempt touches the file of another, so
one that was thought lost spoils nothing, and nobody takes a lock; the one that came furthest
is gone on with. The client makes the folder and takes it away.
"""

import json
import pathlib
import re
import secrets
from typing import Any

from bptt_jax.sweep import _store
from bptt_jax.sweep._job import Evaluated


class Attempts:
    """The attempts at one group, of which this is a new one.

    Args:
      folder: of the group; where it is not seen (no shared disk) nothing is saved.
      token: path of a file that its client has made, and takes away when it stops.
    """

    def __init__(self, folder: str, token: str):
        self.folder, self.token = pathlib.Path(folder), pathlib.Path(token)
        self.shared = self.token.exists() and self.folder.is_dir()
        number = 1 + max(map(_number, self._files()), default=0)
        self.path = self.folder / f"attempt-{number}-{secrets.token_hex(4)}.safetensors"

    def wanted(self) -> bool:
        """Whether its client is there still, as far as can be seen from here."""
        return not self.shared or self.token.exists()

    def save(self, step: int, found: list[Evaluated], lanes: Any) -> None:
        """The state after so many steps; `lanes` on the host."""
        if self.shared and self.folder.is_dir():
            _store.save(self.path, lanes, step=step, found=json.dumps(found))

    def furthest(self, like: Any) -> tuple[int, list[Evaluated], Any] | None:
        """What the attempt that came furthest has saved; damaged files are passed over."""
        for path in sorted(self._files(), key=_step, reverse=True):
            try:
                lanes, about = _store.load(path, like)
                found = [Evaluated(*each) for each in json.loads(about["found"])]
                return int(about["step"]), found, lanes
            except (ValueError, KeyError, TypeError, OSError):
                continue
        return None

    def _files(self) -> list[pathlib.Path]:
        return list(self.folder.glob("attempt-*.safetensors")) if self.shared else []


def _number(path: pathlib.Path) -> int:
    found = re.match(r"attempt-(\d+)-", path.name)
    return int(found[1]) if found else 0


def _step(path: pathlib.Path) -> int:
    try:
        return int(_store.record(path)["step"])
    except (ValueError, KeyError):
        return -1
