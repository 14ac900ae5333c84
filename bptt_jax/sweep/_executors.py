"""What is known of executors beyond their interface: places, and what they cannot.

`concurrent.futures.Executor` says nothing of how many work for it. Nothing is imported for
this: a program that uses one of them has it.
"""

import concurrent.futures
from typing import Any

ANSWER = 5
"""Seconds in which a scheduler is to say who works for it."""


def refuse_unfit(executor: Any) -> None:
    """Refuses what has not the interface, and processes that are forked."""
    if not callable(getattr(executor, "submit", None)):
        raise TypeError(
            "executor: expected what has submit(function, …) -> Future, as "
            f"concurrent.futures.Executor has it, got {type(executor).__name__}"
        )
    if isinstance(executor, concurrent.futures.ProcessPoolExecutor):
        context = getattr(executor, "_mp_context", None)
        if context is not None and context.get_start_method() == "fork":
            raise ValueError(
                "executor: JAX does not work in forked processes; expected "
                'ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))'
            )


def limits(executor: Any) -> str | None:
    """What it cannot, in one line; None of Dask's, where workers come and go."""
    if _client(executor) is not None:
        return None
    if isinstance(executor, concurrent.futures.ThreadPoolExecutor):
        return None  # there is nobody to be lost
    if isinstance(executor, concurrent.futures.ProcessPoolExecutor):
        return (
            "a process that is killed breaks the whole pool, and none can be added: then "
            "the same command goes on"
        )
    return (
        f"{type(executor).__name__}: whether it outlives a lost worker is not known; if it "
        "does not the same command goes on"
    )


def places(executor: Any, before: int = 0) -> int:
    """Groups that run at a time: threads of Dask's workers, processes of a pool.

    Args:
      executor: any.
      before: what it was; stands where a scheduler does not answer.
    """
    client = _client(executor)
    if client is not None:
        try:
            return sum(client.nthreads(callback_timeout=ANSWER).values())
        except Exception:  # of its connection, whatever that raises; futures tell
            return before
    for name in ("_max_workers", "max_workers", "num_workers"):
        found = getattr(executor, name, None)
        if isinstance(found, int) and found > 0:
            return found
    return before or 1


def is_gone(executor: Any) -> bool:
    """Whether Dask's client has given up its scheduler; what it was given never ends then."""
    return getattr(_client(executor), "status", None) == "closed"


def _client(executor: Any) -> Any:
    """Of Dask's executor its client."""
    client = getattr(executor, "_client", None)
    return client if callable(getattr(client, "nthreads", None)) else None
