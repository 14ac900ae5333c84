"""The code in the documents runs."""

import contextlib
import functools
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from support import apart, compiled

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = ("README.md", "docs/**/*.md", "experiments/*/README.md", "benchmarks/*.md")
MADE = ("docs/api/", "docs/benchmarks/", "docs/experiments/", "docs/notebooks/")
LONG = {
    "README.md",
    "docs/choosing-a-loop.md",
    "docs/choosing-an-unroll.md",
    "docs/diagnosing.md",
    "docs/export.md",
    "docs/flax.md",
    "docs/recipes/frozen-parts.md",
    "docs/recipes/fully-sharded.md",
    "docs/recipes/irregular-times.md",
    "docs/recipes/maml.md",
    "docs/recipes/per-example-gradients.md",
    "docs/recipes/policy.md",
    "docs/recipes/scheduled-sampling.md",
    "docs/scaling.md",
    "docs/tour.md",
    "docs/watching.md",
    "docs/whole-sequences.md",
    "docs/writing-a-task.md",
    "docs/your-own-data.md",
}
WORKED = "docs/adding-a-cell.md"
FRESH = {  # say what has to be said before JAX starts
    "docs/recipes/fully-sharded.md",
    "docs/scaling.md",
}


@contextlib.contextmanager
def default_dtypes():
    """After a page that computes in float64 the next one does not."""
    before = jax.config.jax_enable_x64
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def names_of(page: str) -> dict:
    """What a page's code has defined after all of it has run."""
    names: dict = {}
    with default_dtypes():
        exec(compile("\n".join(blocks(page)), page, "exec"), names)  # noqa: S102
    return names


@functools.cache
def worked() -> dict:
    """That of the worked cell, run once."""
    return names_of(WORKED)


def in_its_own_process(code: str) -> None:
    program = ["-c", f"import support.compiled\n{code}"]
    quickly = {compiled.VARIABLE: compiled.QUICKLY}
    done = apart.run({"page": program}, pathlib.Path.cwd(), **quickly)["page"]
    assert done.returncode == 0, done.stderr[-2000:]


def walks() -> str:
    """A table of 60 walks, as the README has one."""
    rows = ["who,step,x,y,label"]
    for who in range(60):
        way = 1 if who % 2 else -1
        rows += [f"{who},{t},{t * way + who % 7},1,{way}" for t in range(3 + who % 5)]
    return "\n".join(rows)


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


FOUND = [p.relative_to(ROOT).as_posix() for s in SOURCES for p in ROOT.glob(s)]
PAGES = sorted(p for p in FOUND if not p.startswith(MADE) and blocks(p))


def test_there_are_pages_with_code():
    assert {"README.md", WORKED, "docs/tour.md"} <= set(PAGES)


def test_every_block_says_what_it_is_in():
    """Code that is called something else than `python` would not be run."""
    for page in FOUND:
        opened = re.findall(r"^```(.*)$", (ROOT / page).read_text(), re.MULTILINE)[::2]
        other = {name for name in opened if not name.startswith("{")}
        assert other <= {"python", "console", "text", ""}, page


def marked(page: str):
    return pytest.param(page, marks=[pytest.mark.slow] if page in LONG else [])


@pytest.mark.parametrize("page", [marked(page) for page in PAGES])
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "walks.csv").write_text(walks())
    if page in FRESH:
        in_its_own_process("\n".join(blocks(page)))
        return
    if page == "README.md":  # the first that a user compiles
        names_of(page)
        return
    with compiled.quickly():  # its programs are many, and run but a moment
        worked() if page == WORKED else names_of(page)


def test_promises_name_tests_that_are_there():
    text = (ROOT / "docs/robustness.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 40
    for file, test in named:
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(), (file, test)


def test_the_worked_cell_is_caught_when_it_is_wrong():
    names = worked()
    leaky, verify = names["leaky"], __import__("bptt_jax").verify

    def wrong(params, slope, d_h, d_y):
        d_before, delta = leaky.vjp.backward(params, slope, d_h, d_y)
        return d_before - 2 * (d_h + d_y) * (1 - names["ALPHA"]), delta

    mutant = leaky._replace(vjp=leaky.vjp._replace(backward=wrong))
    with pytest.raises(verify.GradientError):
        verify.check(mutant, inputs=names["N_IN"], quick=True)


def test_readme_example_is_short():
    first = blocks("README.md")[0].strip().splitlines()
    assert len([line for line in first if line.strip()]) <= 15
    second = next(block for block in blocks("README.md") if "data.read" in block)
    assert len(second.strip().splitlines()) <= 12


def test_tables_are_those_of_the_committed_results():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tables", "--check"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
