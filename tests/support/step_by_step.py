"""A fixture: models of a module's tests run step by step, where they do not say how."""

import pytest

from bptt_jax import loops


@pytest.fixture(autouse=True)
def step_by_step():
    with loops.preferred(loops.step_by_step):
        yield
