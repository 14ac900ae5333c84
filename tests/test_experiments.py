"""Experiments run in their quick mode, and their results are what their pages say."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from support.compiled import QUICK

FOLDER = pathlib.Path(__file__).parent.parent / "experiments"
EXPERIMENTS = sorted(path.parent for path in FOLDER.glob("*/run.py"))
every_experiment = pytest.mark.parametrize(
    "folder", EXPERIMENTS, ids=lambda path: path.name
)


def test_there_are_experiments():
    assert EXPERIMENTS


@every_experiment
def test_results_and_page_are_there(folder):
    results = json.loads((folder / "results.json").read_text())
    page = (folder / "README.md").read_text()
    assert results
    for name in (p.name for p in folder.glob("*.png")):
        assert f"({name})" in page, f"{name} is not on the page"


# most of the time of a quick mode is the compiler's
FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())


@pytest.mark.slow
@every_experiment
def test_quick_mode_runs(folder, tmp_path):
    flags = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
    done = subprocess.run(
        [sys.executable, folder / "run.py", "--quick"],
        cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"XLA_FLAGS": flags},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout
    assert not list(tmp_path.iterdir())
