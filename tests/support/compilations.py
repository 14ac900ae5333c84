"""How many programs are compiled meanwhile."""

import contextlib

import jax

_lists: list[list] = []


def _listen(event, seconds, **_):
    if "backend_compile" in event:
        for found in _lists:
            found.append(event)


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextlib.contextmanager
def compilations():
    """A list with an entry for each program that has been compiled since."""
    found = []
    _lists.append(found)
    try:
        yield found
    finally:
        _lists[:] = [each for each in _lists if each is not found]
