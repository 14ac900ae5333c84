"""Tests are in the tier that they have the time for."""

import pathlib

import pytest

from support import durations, slow, smoke

TESTS = pathlib.Path(__file__).parent


def names(file: str) -> str:
    return (TESTS / file).read_text(encoding="utf-8")


def gone(test: str) -> bool:
    file, _, rest = test.removeprefix("tests/").partition("::")
    name = rest.partition("[")[0]
    return not (TESTS / file).exists() or f"def {name}(" not in names(file)


def gone_as(beginning: str) -> bool:
    file, _, name = beginning.partition("[")[0].partition("::")
    return f"def {name}" not in names(file)


def of_the_table() -> dict[str, float]:
    return durations.read(durations.FILE.read_text(encoding="utf-8"))


def too_long(table: dict[str, float], items) -> list[str]:
    """Tests of the fast tier that the table says to be long, but for those that stay."""
    fast = {item.nodeid for item in items if not item.get_closest_marker("slow")}
    return [t for t, s in table.items() if is_long(s) and t in fast and not stays(t)]


def is_long(seconds: float) -> bool:
    return seconds > durations.LONGEST


def stays(test: str) -> bool:
    return test.removeprefix("tests/").startswith(durations.STAYS)


def test_the_table_names_tests_that_are_there():
    table = of_the_table()
    assert table
    assert [test for test in table if gone(test)] == []


def test_long_ones_are_slow(request):
    """Of the files that are collected together with this one: in a whole run, all."""
    assert too_long(of_the_table(), request.session.items) == []


def test_those_that_stay_are_there_and_take_little():
    assert [
        test for test in durations.STAYS if "::test" in test and gone_as(test)
    ] == []
    long = [s for t, s in of_the_table().items() if is_long(s) and stays(t)]
    assert sum(long) <= durations.AT_MOST


def test_a_long_one_is_found(request):
    item = request.node
    assert too_long({item.nodeid: 3.1}, [item]) == [item.nodeid]
    assert too_long({item.nodeid: 2.9}, [item]) == []
    item.add_marker(pytest.mark.slow)
    assert too_long({item.nodeid: 3.1}, [item]) == []


def test_the_table_is_read_as_it_is_written():
    seconds = {"a.py::b[c d]": 1.5, "a.py::e": 7.25, "a.py::f": 0.4}
    written = durations.text(seconds)
    assert written == "7.2 a.py::e\n1.5 a.py::b[c d]\n"
    assert durations.read(written) == {"a.py::e": 7.2, "a.py::b[c d]": 1.5}


def test_the_list_of_slow_ones_names_tests_that_are_there():
    assert slow.listed()
    assert [test for test in slow.listed() if gone(test)] == []


def test_listed_ones_are_slow(request):
    listed = slow.listed()
    each = [item for item in request.session.items if item.nodeid in listed]
    assert all(item.get_closest_marker("slow") for item in each)


def test_the_list_is_of_long_ones_that_no_fault_names():
    a, b, c, d = (f"tests/a.py::{name}" for name in ("a", "b[1]", "c", "d"))
    stays, e, f = f"tests/{durations.STAYS[0]}", "tests/a.py::e[1]", "tests/a.py::e[2]"
    table = {a: 0.6, b: 0.7, c: 0.4, d: 0.7, stays: 9.0, e: 1.0, f: 1.0}
    assert slow.chosen(table, {"a.py::b", "a.py::e[2]"}) == [a, d, e]
    written = sorted(slow.listed())
    assert slow.chosen(dict.fromkeys(written, slow.MOST), slow.named()) == written


def test_what_faults_name_is_in_the_fast_tier(request):
    """Of the files that are collected together with this one."""
    there = {item.nodeid.removeprefix("tests/") for item in request.session.items}
    fast = there | {test.partition("[")[0] for test in there}
    files = {test.partition("::")[0] for test in there}
    named = {test for test in slow.named() if test.partition("::")[0] in files}
    assert sorted(named - fast) == []


def test_smoke_is_of_tests_that_are_there():
    each = [(file, name) for file, found in smoke.SMOKE.items() for name in found]
    assert [at for at in each if f"def {at[1]}(" not in names(at[0])] == []
