"""Notebooks run from top to bottom, and each is its script's twin."""

import importlib.util
import json
import pathlib
import re
import subprocess
import tomllib

import jax
import matplotlib as mpl
import pytest

from support import compiled

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = {
    "backpropagation_through_time", "bring_your_own_cell", "character_model",
    "inside_a_larger_model", "learning_rate_sweep", "memory", "vanishing_gradients",
    "your_own_data",
}  # fmt: skip
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def cells_of(path: pathlib.Path) -> list[dict]:
    return json.loads(path.read_text())["cells"]


def source(path: pathlib.Path, kind: str = "code") -> list[str]:
    return ["".join(c["source"]) for c in cells_of(path) if c["cell_type"] == kind]


def script_cells(script: str) -> list[tuple[str, str]]:
    """`(kind, text)` of each cell of a script in jupytext's percent format."""
    parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)[1:]
    found = []
    for mark, text in zip(parts[::2], parts[1::2], strict=True):
        kind = "markdown" if mark.strip() == "[markdown]" else "code"
        if kind == "markdown":
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        found.append((kind, text.strip()))
    return found


def outputs(path: pathlib.Path) -> list[dict]:
    return [o for c in cells_of(path) for o in c.get("outputs", [])]


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == NAMES


@every_notebook
def test_script_and_notebook_say_the_same(path):
    twin = [(c["cell_type"], "".join(c["source"])) for c in cells_of(path)]
    script = path.with_suffix(".py").read_text()
    assert twin == script_cells(script)
    assert twin != script_cells(script.replace("jnp.", "np.", 1))
    assert twin != script_cells(script.replace("takes", "takes not", 1))


@every_notebook
def test_outputs_are_there_and_none_is_an_error(path):
    code = [c for c in cells_of(path) if c["cell_type"] == "code"]
    counts = [c["execution_count"] for c in code]
    assert counts == list(range(1, len(code) + 1))  # once, from top to bottom
    kinds = {o["output_type"] for o in outputs(path)}
    assert "stream" in kinds
    assert kinds <= {"stream", "execute_result"}
    assert all(o.get("name", "stdout") == "stdout" for o in outputs(path))
    shown = [o["data"] for o in outputs(path) if "data" in o]
    assert all("image/png" in data for data in shown)  # no widgets, no bare values
    assert shown


@every_notebook
def test_nothing_is_of_the_machine_that_ran_it(path):
    text = "".join("".join(o.get("text", "")) for o in outputs(path))
    assert not re.search(r"(?<![\w.])/(home|root|tmp|usr|opt|Users)/|Warning", text)
    metadata = json.loads(path.read_text())["metadata"]
    assert set(metadata) == {"kernelspec", "language_info"}
    assert metadata["language_info"] == {"name": "python"}
    assert not any(c["metadata"] for c in cells_of(path))


@every_notebook
def test_says_how_long_it_takes(path):
    words = " ".join(source(path, "markdown")[0].split())
    assert re.search(
        r"takes about [\w ]*(minute|second)s?[\w ]* on two CPU cores", words
    )


@every_notebook
def test_begins_by_finding_the_package(path):
    first = source(path)[0]
    assert first == source(NOTEBOOKS[0])[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address = project.get("urls", {}).get("Repository")
    assert f'PACKAGE = "{f"git+{address}" if address else ".."}"' in first


def test_installs_the_package_and_leaves_jax_alone(monkeypatch):
    commands = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(
        subprocess, "run", lambda command, check: commands.append(command)
    )
    exec(source(NOTEBOOKS[0])[0], {})  # noqa: S102
    ((*pip, package, pinned),) = commands
    assert pip[1:] == ["-m", "pip", "install", "-q"]
    assert package in source(NOTEBOOKS[0])[0]
    assert pinned == f"jax=={jax.__version__}"


@pytest.fixture
def quick(monkeypatch):
    """Small sizes, and programs that are compiled in less time and run in more."""
    monkeypatch.setenv("BPTT_JAX_QUICK", "1")
    with compiled.quickly():
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@every_notebook
def test_runs(path):
    names: dict = {}
    with mpl.rc_context({"backend": "Agg"}):
        for cell in source(path):
            exec(compile(cell, path.name, "exec"), names)  # noqa: S102
    assert names["QUICK"]
