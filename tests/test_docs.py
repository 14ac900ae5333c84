"""The code in the documents runs."""

import pathlib
import re
import subprocess
import sys

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ["README.md", "docs/adding-a-cell.md", "docs/flax.md"]


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = blocks(page)
    assert code, "no code on the page"
    names: dict = {}
    for block in code:
        exec(compile(block, page, "exec"), names)  # noqa: S102


def test_the_worked_cell_is_caught_when_it_is_wrong():
    names: dict = {}
    for block in blocks("docs/adding-a-cell.md")[:-1]:
        exec(block, names)  # noqa: S102
    leaky, verify = names["leaky"], __import__("bptt_jax").verify

    def wrong(params, slope, d_h, d_y):
        d_before, delta = leaky.vjp.backward(params, slope, d_h, d_y)
        return d_before - 2 * (d_h + d_y) * (1 - names["ALPHA"]), delta

    mutant = leaky._replace(vjp=leaky.vjp._replace(backward=wrong))
    with pytest.raises(verify.GradientError):
        verify.check(mutant, inputs=names["N_IN"])
    jax.clear_caches()


def test_readme_example_is_short():
    first = blocks("README.md")[0].strip().splitlines()
    assert len([line for line in first if line.strip()]) <= 15


def test_tables_are_those_of_the_committed_results():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tables", "--check"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
