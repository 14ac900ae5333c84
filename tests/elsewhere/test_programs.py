"""Programs for devices that are not here are those of the table.

They are compiled, not run: counts, memory and exchanges are exact, time is not known. Where a
change is meant, `PYTHONPATH=tests python -m elsewhere --write` writes the table anew, and its
difference is what the change did.
"""

import importlib.util

import jax
import pytest

from elsewhere import programs

pytestmark = pytest.mark.elsewhere
NEEDED = "jax_plugins.xla_cuda13", "libtpu"


@pytest.fixture(scope="module", autouse=True)
def compilers():
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    assert not missing, (
        f"{missing}: pip install --no-deps -r .ci/elsewhere, in an environment of its own"
    )
    was = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)  # cannot be read for these
    yield
    jax.config.update("jax_enable_compilation_cache", was)


def test_the_table_is_of_these_programs():
    assert list(programs.table()) == list(programs.PROGRAMS)


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_a_program_is_that_of_the_table(name):
    assert programs.PROGRAMS[name]() == programs.table()[name]


AT_MOST = dict(elman=(7.0, 0.3), lstm=(8.5, 0.3), gru=(8.1, 0.3))


@pytest.mark.parametrize("cell", AT_MOST)
def test_a_step_on_a_gpu_is_a_few_operations_and_no_launch_of_its_own(cell):
    row, (operations, launches) = programs.table()[f"h100, {cell}"], AT_MOST[cell]
    assert row["operations a step"] <= operations
    assert row["host launches a step"] <= launches


def test_one_graph_is_one_launch():
    rows = {n: r for n, r in programs.table().items() if "graph_options" in n}
    assert rows
    for row in rows.values():
        assert row["host launches a step"] == round(1 / programs.T, 3)


def test_spread_over_devices_there_is_no_exchange_in_a_loop():
    rows = {n: r for n, r in programs.table().items() if n[0].isdigit()}
    assert rows
    for name, row in rows.items():
        inside = {k: n for k, n in row["collectives"].items() if "in a loop" in k}
        assert inside == {}, name
        assert row["collectives"]["all-reduce outside of loops"] >= 1, name


def test_a_stretch_is_one_kernel_each_way():
    rows = {n: r for n, r in programs.table().items() if "one kernel" in n}
    assert rows
    for name, row in rows.items():
        assert row["kernels of Mosaic"] == 2 * 2, name  # of each length of a stretch


@pytest.mark.parametrize("examples", [8, 256])
def test_what_has_room_by_its_count_is_compiled_for_the_smallest_memory(examples):
    units = programs.largest("lstm", examples)
    assert units >= 256
    row = programs.one_kernel("lstm", "v4:2x2x1", units, examples)
    assert row["kernels of Mosaic"] == 2 * 2
