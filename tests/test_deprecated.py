"""A former name works, and says at the line that has it what to write."""

import inspect
import pathlib
import pickle
import re
import sys
import types
import warnings
from typing import NamedTuple

import jax
import pytest

import bptt_jax
from bptt_jax import _deprecated, cells, sweep, train
from bptt_jax._factory import factory, record

SOURCES = pathlib.Path(bptt_jax.__file__).parent.rglob("*.py")


@record
class Thing(NamedTuple):
    size: int
    width = _deprecated.attribute("width", "size", gone="9.0.0")


@_deprecated.argument("width", "size", gone="9.0.0")
@factory
def thing(size: int, *, name: str = "") -> Thing:
    return Thing(size)


@_deprecated.field("width", "size", gone="9.0.0")
class Sized(NamedTuple):
    size: int
    name: str = ""


former = _deprecated.function("tests.former", thing, gone="9.0.0")


def told(call):
    """What `call` gives, and its one warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call()
    (warning,) = caught
    assert warning.category is DeprecationWarning
    assert warning.filename == __file__
    line = pathlib.Path(__file__).read_text().splitlines()[warning.lineno - 1]
    assert "told(lambda" in line  # the line of the call, not of the helper
    return found, str(warning.message)


def test_a_function():
    found, text = told(lambda: former(3))
    assert found is thing(3)
    assert text == (
        "tests.former is deprecated and goes away in bptt_jax 9.0.0; use "
        f"{_deprecated._called(thing)}"
    )
    assert inspect.signature(former) == inspect.signature(thing)


def test_a_room_and_a_name():
    assert _deprecated._called(cells.lstm) == "cells.lstm"
    assert _deprecated._called(bptt_jax.objectives.squared_error) == (
        "objectives.squared_error"
    )


def test_an_argument_of_a_factory():
    found, text = told(lambda: thing(width=3, name="a"))
    assert found is thing(3, name="a")
    assert re.fullmatch(r".*thing\(width=…\) is deprecated.*; use size=…", text)
    assert list(inspect.signature(thing).parameters) == ["size", "name"]


def test_a_field_of_a_record():
    found, text = told(lambda: Sized(width=3, name="a"))
    assert found == Sized(3, "a") == pickle.loads(pickle.dumps(found))
    assert text.endswith(
        "Sized(width=…) is deprecated and goes away in bptt_jax 9.0.0; use size=…"
    )
    found, _ = told(lambda: Sized(1)._replace(width=4))
    assert found == Sized(4)
    assert told(lambda: Sized(5).width)[0] == 5
    assert list(inspect.signature(Sized).parameters) == ["size", "name"]
    assert jax.tree.map(lambda a: a + 1, Sized(1, 2)) == Sized(2, 3)
    with pytest.raises(TypeError, match="Sized: got size and its former name width"):
        Sized(size=1, width=2)


def test_former_names_of_training():
    options, text = told(lambda: train.Plan(9))
    assert options == train.RunOptions(updates=9)
    assert text.startswith("train.Plan is deprecated")
    assert told(lambda: train.RunOptions(steps=9))[0] == options
    assert told(lambda: options.steps)[0] == 9
    state = train.TrainState(*range(6))
    assert told(lambda: state.carry)[0] == state.estimator_state == 2
    assert told(lambda: state._replace(carry=7))[0].estimator_state == 7
    assert callable(told(lambda: train.Progress(steps=print))[0].updates)
    listens, text = told(lambda: sweep.Progress(print, max, min))
    assert listens == train.Progress(message=print, advanced=max, interrupted=min)
    assert text.startswith("sweep.Progress is deprecated")


def test_new_names_are_not_told():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert thing(size=3) is thing(3)
        assert thing(3).size == 3


def test_both_names_are_refused():
    with pytest.raises(TypeError, match="got size and its former name width"):
        thing(size=3, width=3)
    with pytest.raises(TypeError, match="missing"):
        thing()


def test_a_decorator_that_names_no_argument_is_refused():
    with pytest.raises(TypeError, match="len has no argument width"):
        _deprecated.argument("breadth", "width", gone="9.0.0")(len)


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, types.ModuleType(__name__))
    for name in ("Thing", "thing", "former"):
        setattr(sys.modules[__name__], name, globals()[name])


def test_what_was_made_is_pickled_by_the_new_names(importable):
    for found in (told(lambda: thing(width=5))[0], told(lambda: former(5))[0]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert pickle.loads(pickle.dumps(found)) is found


def test_an_attribute_of_a_record():
    assert told(lambda: Thing(4).width) == (
        4,
        "Thing.width is deprecated and goes away in bptt_jax 9.0.0; use Thing.size",
    )
    assert Thing._fields == ("size",)


def test_a_name_of_a_module(monkeypatch):
    module = types.ModuleType("bptt_jax.rooms")
    module.new = object()
    module.__getattr__ = _deprecated.names(
        "bptt_jax.rooms", {"old": "new"}, gone="9.0.0", otherwise=lambda name: name * 2
    )
    monkeypatch.setitem(sys.modules, "bptt_jax.rooms", module)
    found, text = told(lambda: module.old)
    assert found is module.new
    assert text == (
        "rooms.old is deprecated and goes away in bptt_jax 9.0.0; use rooms.new"
    )
    assert module.other == "otherother"
    module.__getattr__ = _deprecated.names("bptt_jax.rooms", {}, gone="9.0.0")
    with pytest.raises(AttributeError, match="'bptt_jax.rooms' has no attribute 'old'"):
        _ = module.old
    with pytest.raises(ImportError):
        from bptt_jax.rooms import old  # noqa: F401


def test_what_is_due_has_gone():
    """A version in which a former name goes away is a later one."""
    now = tuple(map(int, bptt_jax.__version__.split(".")))
    for path in SOURCES:
        for version in re.findall(r'gone="(\d+\.\d+\.\d+)"', path.read_text()):
            assert tuple(map(int, version.split("."))) > now, path
