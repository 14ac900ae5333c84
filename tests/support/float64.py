"""A fixture: a module's tests run in float64, and mixed dtypes are an error."""

import jax
import pytest

from bptt_jax._jax import enable_x64


@pytest.fixture(autouse=True, scope="module")
def float64():
    with enable_x64(True), jax.numpy_dtype_promotion("strict"):
        yield
