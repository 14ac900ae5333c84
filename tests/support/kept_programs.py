"""A fixture: where compiled programs are kept on disk, the smallest are kept, too.

A run sets up with some fifty of them, which every process needs again.
"""

import jax
import pytest

_NAME = "jax_persistent_cache_min_compile_time_secs"
ENVIRONMENT = {_NAME.upper(): "0"}
"""For a process of its own."""


@pytest.fixture(autouse=True, scope="module")
def kept_programs():
    before = getattr(jax.config, _NAME)
    jax.config.update(_NAME, 0.0)
    yield
    jax.config.update(_NAME, before)
