"""Dask's scheduler from the command line."""

import contextlib
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

SECONDS = 30
"""In which a scheduler is to answer."""


@contextlib.contextmanager
def executor_of(where: str | None) -> Iterator[Any]:
    """Of a scheduler's address, or the file that it writes; None: nobody else.

    Raises:
      ValueError, OSError: there is none.
      ModuleNotFoundError: Dask is not here.
    """
    if where is None:
        yield None
        return
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "--dask needs distributed: pip install 'bptt-jax[cluster]'"
        ) from None
    with _connected(Client, where) as client:
        yield client.get_executor(pure=False)


def _connected(make: Any, where: str) -> Any:
    if "://" in where:
        found = dict(address=where)
    elif pathlib.Path(where).is_file():
        found = dict(scheduler_file=where)
    else:
        raise ValueError(
            f"--dask {where}: expected the address of a scheduler, tcp://host:8786, or the "
            "file that dask scheduler --scheduler-file has written"
        )
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it says is said
    try:
        return make(timeout=SECONDS, set_as_default=False, **found)
    except (OSError, ValueError, KeyError) as error:
        why = str(error) or type(error).__name__
        raise ValueError(f"--dask {where}: no scheduler there ({why})") from None
