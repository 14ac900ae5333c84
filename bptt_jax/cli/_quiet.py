"""What other libraries say beside a command's own lines, and is left out of them."""

import contextlib
import logging
import sys

import absl.logging


@contextlib.contextmanager
def quiet():
    """While a command runs; a library would not do this to the process of its user.

    orbax reports each save at level INFO, each slow one as a warning, and what fails in
    its threads (on a full disk, say) in tracebacks, beside raising it. Where an array of
    a checkpoint cannot be read, the reads of others end with nobody to tell, in
    tracebacks.
    """
    logger, former = absl.logging.get_absl_logger(), sys.unraisablehook
    level = logger.level

    def hook(found):
        if str(found.exc_value) != "Event loop is closed":
            former(found)

    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        logger.setLevel(level)
        sys.unraisablehook = former
