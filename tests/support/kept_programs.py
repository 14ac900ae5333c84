"""Fixtures: of folders whose modules train the same small jobs, and share their programs.

A run sets up with some fifty programs, which every module and process needs again.
"""

import jax
import pytest

from support import compilations

_NAME = "jax_persistent_cache_min_compile_time_secs"
ENVIRONMENT = {_NAME.upper(): "0"}
"""For a process of its own."""


@pytest.fixture(autouse=True, scope="module")
def kept_programs():
    """Where compiled programs are kept on disk, the smallest are kept, too."""
    before = getattr(jax.config, _NAME)
    jax.config.update(_NAME, 0.0)
    yield
    jax.config.update(_NAME, before)


@pytest.fixture(autouse=True, scope="module")
def own_programs():
    """After a module they are there for the next one, until `few_programs` lets them go."""


_cleared = [0]


@pytest.fixture(autouse=True)
def few_programs():
    """More of them than elsewhere: most are of one operation, and small."""
    yield
    if compilations.total() - _cleared[0] > 1000:
        jax.clear_caches()
        _cleared[0] = compilations.total()
