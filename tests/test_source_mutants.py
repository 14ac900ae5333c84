"""Every fault of the table is one, of the source as it is."""

import ast
import pathlib

import pytest

import source_mutants
from source_edits import EDITS, Edit

TESTS = pathlib.Path(__file__).parent
ROOMS = (
    "unrolls", "layers", "loops", "cells", "_pytrees", "_shardings", "_factory", "_files",
    "estimators", "train", "sweep", "diagnose", "objectives", "sequences", "interop", "wholes",
)  # fmt: skip


def changes_the_program(edit: Edit) -> bool:
    text = source_mutants.place(edit).read_text(encoding="utf-8")
    wrong = source_mutants.edited(edit, text)
    return ast.dump(ast.parse(text)) != ast.dump(ast.parse(wrong))


def test_each_applies_once_and_changes_the_program():
    assert [edit.name for edit in EDITS if not changes_the_program(edit)] == []


def is_there(test: str) -> bool:
    file, _, rest = test.partition("::")
    name = rest.partition("[")[0]
    return bool(name) and f"def {name}(" in (TESTS / file).read_text(encoding="utf-8")


def test_each_names_tests_that_find_it_and_they_are_there():
    hints = {test for edit in EDITS for test in edit.first}
    assert [test for test in sorted(hints) if not is_there(test)] == []


def test_there_are_faults_of_every_room():
    names = [edit.name for edit in EDITS]
    assert len(set(names)) == len(names) >= 200
    for room in ROOMS:
        assert any(edit.file.startswith(room) for edit in EDITS), room


def test_a_text_that_is_not_there_once_is_named():
    for text in ("no such text", "import"):
        edit = Edit("this", "unrolls/_bptt.py", text, "", ())
        with pytest.raises(ValueError, match="this: expected '.*' once in unrolls"):
            source_mutants.place(edit)


def test_what_is_no_longer_found_is_told():
    def of(**caught):
        return {name: dict(caught=test) for name, test in caught.items()}

    before = of(a="tests/x.py::a", b="tests/x.py::b", c=None, d="tests/x.py::d")
    now = of(a="tests/y.py::a", b=None, c=None)
    assert source_mutants.lost(before, now) == ["b"]
