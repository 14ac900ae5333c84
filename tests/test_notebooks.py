"""Notebooks run from top to bottom, and each is its script's twin."""

import json
import pathlib
import re

import jax
import matplotlib as mpl
import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def code(path: pathlib.Path) -> list[str]:
    cells = json.loads(path.read_text())["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@every_notebook
def test_script_and_notebook_say_the_same(path):
    script = path.with_suffix(".py").read_text()
    cells = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)[1:]
    pairs = zip(cells[::2], cells[1::2], strict=True)
    assert code(path) == [text.strip() for kind, text in pairs if not kind.strip()]


@every_notebook
def test_outputs_are_there_and_none_is_an_error(path):
    cells = json.loads(path.read_text())["cells"]
    outputs = [o for c in cells for o in c.get("outputs", [])]
    assert outputs
    assert not [o for o in outputs if o["output_type"] == "error"]


@pytest.mark.slow
@every_notebook
def test_runs(path):
    names: dict = {}
    with mpl.rc_context({"backend": "Agg"}):
        for cell in code(path):
            exec(compile(cell, path.name, "exec"), names)  # noqa: S102
    jax.clear_caches()
