"""Native calls and processes: spawned, forked, ended in the middle of a call, two at a time."""

import multiprocessing
import os
import pathlib
import subprocess
import sys

import pytest

from bptt_jax.native import _disk
from support import calls

TESTS = pathlib.Path(__file__).parent.parent
LONG = 120  # seconds within which a process has ended, on a machine that has other work


def start(program: str, *arguments: str, cache=None) -> subprocess.Popen:
    """A process that runs a program with the tests' modules beside ours."""
    env = dict(os.environ, JAX_PLATFORMS="cpu")
    env["PYTHONPATH"] = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    if cache is not None:
        env["XDG_CACHE_HOME"] = str(cache)
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def said(process: subprocess.Popen, status: int = 0) -> list[str]:
    """The words that a process writes until it has ended, with this status."""
    try:
        out, err = process.communicate(timeout=LONG)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"it hangs: {process.communicate()}") from None
    assert process.returncode == status, (process.returncode, out, err)
    return out.split()


@pytest.mark.slow
def test_spawned_workers_compute_the_same_bits():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map_async(calls.bits, range(4), chunksize=1).get(LONG)
    assert set(found) == {calls.bits()}


FORKS = """
import multiprocessing, os, time
from support import calls

bits = calls.gradient()
before = bits()
child = os.fork()
if not child:
    os._exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.1,))
other.start()
during = bits()
other.join()
print(status, other.exitcode, before == during == bits())
"""


def test_a_forked_child_ends_and_its_parent_goes_on():
    """As `os.fork` and `multiprocessing` end one. (The end of an interpreter that was forked with
    JAX in it, `sys.exit`, is a crash in JAX 0.10.2 by itself.)
    """
    assert said(start(FORKS)) == ["7", "0", "True"]


IN_THE_MIDDLE = """
import os, sys, threading, time
import jax, jax.numpy as jnp
from bptt_jax import cells, layers, loops, unrolls

B, H, T = 16, 128, 600_000
cell = cells.from_step(
    lambda p, h, x: (jnp.tanh(h @ p[0] + x @ p[1]), h[..., :1]),
    lambda key: (jnp.zeros((H, H)), jnp.zeros((1, H))),
    lambda p, batch: jnp.zeros((*batch, H), jnp.float32),
)
layer = layers.recurrent(cell, loop=loops.native)
p = 0.5 * jnp.eye(H, dtype=jnp.float32), jnp.ones((1, H), jnp.float32)
# with a sum: what XLA counts no operations of is run by the thread that calls
f = jax.jit(lambda xs: unrolls.bptt(layer, p, cell.init_carry(p, (B,)), xs)[1].sum())
run = f.lower(jax.ShapeDtypeStruct((T, B, 1), jnp.float32)).compile()
assert run.as_text().count('custom_call_target="bptt_jax_') == 1
xs = jnp.ones((T, B, 1), jnp.float32)
ended = []
call = lambda: ended.append(run(xs).block_until_ready())
{begin}
time.sleep(0.3)
assert not ended
print("in the middle", flush=True)
{end}
"""
BEGINNINGS = {
    "dispatched": "ys = run(xs); ended += [ys] * ys.is_ready()",
    "of a thread": "threading.Thread(target=call).start()",
}
ENDS = {"at once": "os._exit(7)", "in good order": "sys.exit(7)"}


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("dispatched", "in good order"),
        pytest.param("dispatched", "at once", marks=pytest.mark.slow),
        pytest.param("of a thread", "at once", marks=pytest.mark.slow),
        pytest.param("of a thread", "in good order", marks=pytest.mark.slow),
    ],
)
def test_a_process_ends_in_the_middle_of_a_call(begin, end):
    """On XLA's threads, which run on while the interpreter ends: code and buffers stay.

    (A daemon thread of Python that is in a call then is a crash in JAX 0.10.2 by itself.)
    """
    program = IN_THE_MIDDLE.format(begin=BEGINNINGS[begin], end=ENDS[end])
    assert said(start(program), 7) == ["in", "the", "middle"]


TOGETHER = """
import pathlib, sys, time
from bptt_jax.native import _compiled
from support import calls

here, folder = sys.argv[1], pathlib.Path(sys.argv[2])
compile, made = _compiled.object_code, []


def object_code(text, machine):
    "Ends when the other process has the same code in its hands, too."
    code = compile(text, machine)
    made.append(code)
    (folder / f"{len(made)} of {here}").touch()
    before = time.monotonic()
    while len(list(folder.glob(f"{len(made)} of *"))) < 2:
        assert time.monotonic() < before + 60, "the other process has not compiled"
        time.sleep(0.001)
    return code


_compiled.object_code = object_code
print(calls.bits(), len(made))
"""


@pytest.mark.slow
def test_two_processes_compile_the_same_kernel_at_once(tmp_path, monkeypatch):
    """Both write its file; both are right, and what stays is whole."""
    cache, folder = tmp_path / "cache", tmp_path / "met"
    folder.mkdir()
    both = [start(TOGETHER, name, str(folder), cache=cache) for name in ("a", "b")]
    wanted = [calls.bits(), "3"]  # kernels of both ways, and what they call
    assert [said(process) for process in both] == [wanted, wanted]
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    files = sorted((cache / "bptt_jax" / "native").iterdir())
    assert len(files) == 3
    assert all(_disk.read(path.stem) for path in files)
