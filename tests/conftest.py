"""What all tests share."""

import gc
import sys

import jax
import pytest

from support import compilations, compiled, durations, slow, smoke

_cleared = [0]
"""How many programs had been compiled when the last ones were let go."""


def pytest_configure(config):
    durations.register(config)
    compiled.keep_also_small_ones()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    slow.mark(items)
    smoke.mark(items)


def pytest_collection_finish():
    """Else much time goes to looking for garbage among what tracing makes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    compiled.before(item)


@pytest.fixture(autouse=True)
def few_programs():
    """Thousands of compiled programs in one process exhaust its memory, and its maps; small
    ones, of one operation, are those of the next module, too.
    """
    yield
    if compilations.total() - _cleared[0] > 1000:  # of 1.5 MB at most
        jax.clear_caches()
        _cleared[0] = compilations.total()


@pytest.fixture(autouse=True, scope="session")
def no_screens():
    """Under `pytest -s` on a terminal, too, a loop to which nothing is said is silent."""
    if not sys.stdout.isatty():
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bptt_jax.progress._shown.on_terminal", lambda: False)
        yield
