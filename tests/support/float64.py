"""A fixture: a module's tests run in float64, and mixed dtypes are an error."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        yield
