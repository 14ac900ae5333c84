"""Parameters and optimizer spread over devices: where their recipe gathers weights."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from support import compiled

PAGE = pathlib.Path(__file__).parents[2] / "docs/recipes/fully-sharded.md"
PROGRAM = """
exec(compile(open(sys.argv[1]).read(), "the page", "exec"))

from support import exchanges as of

def compiled_text(f):
    jitted = jax.jit(f, out_shardings=(shardings, whole))
    return jitted.lower(state, spread_xs, spread_ys).compile().as_text()

def moved(text):
    return [(e.kind, len(e.loops), shape) for e in of.found(text) for shape in e.shapes]

found = moved(program.as_text())
weights = {a.shape for a in jax.tree.leaves(state[0])}
gathered = [(depth, shape) for kind, depth, shape in found if kind == "all-gather"]
assert sorted(shape for _, shape in gathered) == sorted(weights), gathered
assert all(depth == 0 for depth, _ in gathered), gathered
sums = {depth for kind, depth, _ in found if kind == "all-reduce"}
assert sums and max(sums) <= 1, found  # none at each step
assert {kind for kind, *_ in found} == {"all-gather", "all-reduce"}, found

text = compiled_text(step)  # without the line that gathers
assert any(depth == 2 for _, depth, _ in moved(text)), moved(text)
assert exchanges(text) != exchanges(program.as_text())
print("as it says")
"""


@pytest.mark.slow
def test_weights_are_gathered_once_and_never_in_a_loop(tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    (tmp_path / "page.py").write_text(code)
    environment = {
        **os.environ,
        **compiled.environment(),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + PROGRAM, tmp_path / "page.py"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("as it says\n"), done.stderr[-3000:]
