"""The lowest versions: written down once, tested, and met in one file."""

import importlib.util
import pathlib
import re
import runpy
import tomllib

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = pathlib.Path(importlib.util.find_spec("bptt_jax").origin).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
MOVED = re.compile(
    r"\bjax\.enable_x64\(|\benable_x64 *\n?.*jax\.experimental|experimental\.enable_x64"
    r"|\blax\.(pcast|pvary)\b|from jax\.lax import .*\b(pcast|pvary)\b"
    r"|from jax import .*\benable_x64\b"
)


def lowest() -> dict[str, str]:
    lines = (ROOT / ".ci" / "lowest").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert len(pins) == len({name for name, _ in pins})
    return {name: version for name, version in pins}


def test_bounds_are_what_is_tested():
    declared = dict(r.split(">=") for r in PROJECT["dependencies"] + EXTRAS["dev"])
    pins = lowest()
    assert pins.pop("jaxlib") == pins["jax"]
    assert declared == pins
    for name in ("cuda", "tpu"):
        (jax_with,) = EXTRAS[name]
        assert jax_with.endswith(f"]>={pins['jax']}")


def test_the_lowest_versions_are_run():
    text = (ROOT / ".ci" / "run").read_text()
    assert 'lowest python3 ".[dev]" -c .ci/lowest' in text
    (listed,) = re.findall(r"^interfaces=\((.*?)^\)", text, re.DOTALL | re.MULTILINE)
    (too,) = re.findall(r"^too=\((.*?)\)", text, re.MULTILINE)
    assert "not slow or listed" in too  # those of tests/slow.txt, too
    runs = re.split(r"\$work/(?:lowest|second)/bin/activate", text)
    theirs = 'tests "${too[@]}" "${interfaces[@]}"'
    assert [run.count(theirs) for run in runs] == [0, 1, 1]
    paths = re.findall(r"tests/[\w/.{},]+", listed)
    named = [
        path
        for given in paths
        for inner in [re.search(r"\{(.*)\}", given)]
        for path in (
            [given.replace(inner[0], one) for one in inner[1].split(",")]
            if inner
            else [given]
        )
    ]
    assert len(named) > 10
    assert all((ROOT / path).exists() for path in named)


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_pages_name_the_lowest_jax(page):
    assert f"JAX {lowest()['jax']}" in (ROOT / page).read_text().replace(" is ", " ")


def test_names_that_moved_are_met_in_one_file():
    folders = [PACKAGE, *(ROOT / n for n in ("tests", "benchmarks", "experiments"))]
    files = {path for folder in folders for path in folder.rglob("*.py")}
    files |= set((ROOT / "notebooks").glob("*.py")) | set((ROOT / "docs").glob("*.md"))
    files -= {PACKAGE / "_jax.py", pathlib.Path(__file__)}
    assert MOVED.search((PACKAGE / "_jax.py").read_text())
    assert not [path for path in files if MOVED.search(path.read_text())]


def test_an_older_jax_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 6, 2))
    monkeypatch.setattr(jax, "__version__", "0.6.2")
    with pytest.raises(
        ImportError, match=rf"JAX {lowest()['jax']} or later, got 0.6.2"
    ):
        runpy.run_path(str(PACKAGE / "_jax.py"))
