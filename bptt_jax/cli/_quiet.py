"""What other libraries say beside a command's own lines, and is left out of them."""

import contextlib
import logging
import sys
import threading
import time

import absl.logging

AFTER = 2.0
"""Seconds in which threads that are still writing when a command has failed end."""

CALLBACKS = 0.3
"""Seconds in which what they had begun below Python calls back."""


@contextlib.contextmanager
def quiet():
    """While a command runs; a library would not do this to the process of its user.

    orbax reports each save at level INFO, each slow one as a warning, and what fails in
    its threads (on a full disk, say) in tracebacks, beside raising it. It raises what
    failed first; the other threads fail later, so after a failure they are waited for.
    Where an array of a checkpoint cannot be read or written, the work on others ends with
    nobody to tell, in tracebacks.
    """
    loggers = absl.logging.get_absl_logger(), logging.getLogger("asyncio")
    levels, former = [logger.level for logger in loggers], sys.unraisablehook
    there = set(threading.enumerate())

    def hook(found):
        if str(found.exc_value) != "Event loop is closed":
            former(found)

    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = hook
    try:
        yield
    except Exception:
        _wait_for_others(there)
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        sys.unraisablehook = former


def _wait_for_others(there: set[threading.Thread]) -> None:
    """Until the threads that are not of `there` have ended, if there are any."""
    until = time.monotonic() + AFTER
    others = [t for t in set(threading.enumerate()) - there if not t.daemon]
    for thread in others:
        # not its own join: that of orbax raises what has failed in it
        threading.Thread.join(thread, max(0.0, until - time.monotonic()))
    if others:
        time.sleep(CALLBACKS)
