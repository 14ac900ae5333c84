"""What all tests share."""

import itertools

import jax
import pytest

from support import durations, smoke

_tests = itertools.count(1)


def pytest_configure(config):
    durations.register(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    smoke.mark(items)


@pytest.fixture(autouse=True)
def few_programs():
    """Hundreds of compiled programs in one process exhaust its memory maps."""
    yield
    if next(_tests) % 50 == 0:
        jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def own_programs():
    yield
    jax.clear_caches()
