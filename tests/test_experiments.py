"""Experiments run in their quick mode, and their results are what their pages say."""

import json
import pathlib

import pytest

from support import apart, compiled

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


# what they set before JAX starts, or never put back, is for each process
WIDE = {"influence_balancing", "vanishing_gradient"}
DEVICES = {"learning_rate_sweep"}
OTHERS = {folder.name for folder in EXPERIMENTS} - WIDE - DEVICES


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [WIDE, DEVICES, OTHERS], ids=["wide", "devices", "others"]
)
def test_quick_modes_run(names, tmp_path):
    programs = {n: [str(FOLDER / n / "run.py"), "--quick"] for n in sorted(names)}
    for name, done in apart.run(programs, tmp_path, **compiled.FLAGS).items():
        assert done.returncode == 0, (name, done.stderr[-3000:])
        assert done.stdout, name
    assert not list(tmp_path.iterdir())
