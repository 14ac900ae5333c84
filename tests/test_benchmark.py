"""The comparison with peers runs, and what it makes of its figures is right."""

import json
import pathlib
import platform
import subprocess
import sys

import pytest

from support import apart

ROOT = pathlib.Path(__file__).parent.parent
HERE = ["bptt_jax", "bptt_jax remat", "lax.scan", "flax.linen.RNN"]  # extra: dev


def run(*command) -> subprocess.CompletedProcess:
    """In a process of its own, where `benchmarks` is a package."""
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_short_run(tmp_path):
    out = tmp_path / "peers.json"
    done = run(
        *("-m", "benchmarks.run", "--quick", "--shapes", "1", "--seconds", "0.1"),
        *("--patience", "0", "--out", str(out), "--only", *HERE),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(out.read_text())
    assert [case["cell"] for case in result["cases"]] == ["elman", "lstm", "gru"]
    for case in result["cases"]:
        assert list(case["rows"]) == HERE
        for row in case["rows"].values():
            assert row["difference"] <= 1e-4
            assert row["gradient_ms"]["min"] > row["forward_ms"]["min"] > 0
            assert row["temp_bytes"] > 0
    assert "the fastest JAX peer" in done.stdout
    assert out.with_suffix(".png").stat().st_size > 1000


REFUSED = {
    "benchmarks.run --only theano": "expected some of",
    "benchmarks.run --shapes 9": "from 1 to 8",
    "benchmarks.allocations --rounds 0": "--rounds: expected at least 1, got 0",
    "benchmarks.commands . --rounds 0": "--rounds: expected at least 1, got 0",
    "benchmarks.commands tests": "expected a folder with the package, got tests",
    "benchmarks.data_wait --rounds 0": "--rounds: expected at least 1, got 0",
    "benchmarks.japanese_vowels --rounds 0": "--rounds: expected at least 1, got 0",
}


@pytest.fixture(scope="module")
def ended():
    """What becomes of the commands that are refused, and of code."""
    commands = {words: ["-m", *words.split()] for words in REFUSED}
    return apart.run(
        {
            **commands,
            "disagreement": ["-c", DISAGREEMENT],
            "workers": ["-c", WORKERS],
        }
    )


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_not_there_is_named(words, ended):
    done = ended[words]
    assert done.returncode == 1
    assert REFUSED[words] in done.stderr
    assert "Traceback" not in done.stderr


DISAGREEMENT = """
import numpy as np
from benchmarks._agree import TOLERANCE, difference
from benchmarks import _report

a = (np.ones(3), [dict(w_h=np.ones((2, 2)))], np.ones(3))
b = (np.ones(3), [dict(w_h=np.array([[1, 1], [1, 1.001]]))], np.ones(3))
assert difference(a, a) == 0 and difference(b, a) > TOLERANCE
c = (np.ones(3), [dict(w_h=np.ones((2, 2)))], np.array([1, np.nan, 1]))
assert np.isnan(difference(c, a))

def row(gradient, temp):
    ms = dict(min=gradient, median=2 * gradient)
    return dict(gradient_ms=ms, forward_ms=ms, temp_bytes=temp, compile_s=gradient)

rows = {
    "bptt_jax": row(2, 30), "bptt_jax remat": row(3, 20), "lax.scan": row(4, 90),
    "flax.linen.RNN": row(3, 100), "torch": row(1, None),
}
record = dict(name="a", cell="lstm", B=16, T=50, H=256, floor_ms=1.0, rows=rows)
record["start_ms"] = dict(min=0.5, median=0.6)
assert _report.fastest(rows, "gradient_ms") == ("flax.linen.RNN", 3)
assert _report.speedup(record) == 1.5 and _report.over_torch(record) == 0.5
assert _report.temp_ratio(record) == 0.3
reached = {line[0]: line[2] for line in _report.goals(dict(cases=[record]))}
assert reached["… in the worst case"] == "1.50, a"
assert reached["… the worst of (16, 50, 2, 16)"] == "1.50, a"
assert reached["time of a program that computes nothing, over ours: (16, 50, 2, 16)"] == "0.25, a"
assert reached["… than PyTorch, in the worst case"] == "0.50, a"
assert reached["time over the floor, H ≥ 256, worst"] == "2.00, a"
assert reached["time of LSTM under remat to that without"] == "1.50, a"
"""


def test_disagreement_is_seen_and_figures_are_those_of_the_rows(ended):
    assert ended["disagreement"].returncode == 0, ended["disagreement"].stderr


@pytest.mark.slow
def test_commands_of_two_checkouts():
    """Of this one with itself: a sweep of few steps."""
    quick = "--quick", "--rounds", "1", "--only", "sweep16"
    done = run("-m", "benchmarks.commands", ".", *quick)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("sweep16: of the other's time {'seconds': {'min': ")


@pytest.mark.slow
def test_steps_of_all_agree():
    done = run("-m", "benchmarks.steps", "--quick")
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("unrolls.step in jit", "flax.linen", "torch"):
        assert done.stdout.count(name) == 2  # of two cells


@pytest.mark.slow
def test_models_of_whole_sequences_agree():
    done = run("-m", "benchmarks.models", "--quick")
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("bptt_jax", "lax.scan", "flax.linen", "torch"):
        assert done.stdout.count(name) == 2  # of two models


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="measures glibc")
def test_allocations_are_measured_with_and_without(tmp_path):
    out = tmp_path / "allocations.json"
    done = run(
        *("-m", "benchmarks.allocations", "--quick", "--rounds", "2"),
        *("--seconds", "0.1", "--patience", "0", "--out", str(out)),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (case,) = json.loads(out.read_text())["cases"]
    assert {"bptt_jax", "flax.linen.RNN"} <= {*case["rows"]}
    for ways in case["rows"].values():
        plain = ways["as_it_is"]
        for row in ways.values():
            assert row["calls"] == plain["calls"] >= 2
            ratio = plain["min"] / row["min"]
            assert row["faster"]["min"] == pytest.approx(ratio, 0.01, 0.001)


FRESH = """
import statistics

from benchmarks import allocations, _cases

case = _cases.Case("lstm", 64, 300, 64, 128)  # 10 MB of each T B H
steps = dict(BPTT_JAX_LOOP="step_by_step")  # kernels take large pages
for environment in ({}, allocations.ONE_ARENA):
    process = allocations.Contestant("bptt_jax", case, steps | environment)
    assert process.answer() is None
    process.turn(8)
    # the median: beside other work a heap may still grow, in one call of them
    print(statistics.median(process.turn(1).faults for _ in range(7)))
    process.end()
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="measures glibc")
def test_kept_memory_is_not_faulted_in_again():
    done = run("-c", FRESH)
    assert done.returncode == 0, done.stderr[-3000:]
    fresh, kept = map(int, done.stdout.split())
    assert fresh > 1000
    assert kept < fresh / 10


@pytest.mark.slow
def test_waiting_for_data_is_a_share_of_the_time(tmp_path):
    out = tmp_path / "data_wait.json"
    done = run(
        *("-m", "benchmarks.data_wait", "--quick", "--rounds", "2"),
        *("--patience", "0", "--out", str(out)),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cases = json.loads(out.read_text())["cases"]
    assert {*cases} == {"arrays", "windows", "text", "iterator"}
    for case in cases.values():
        assert 0 <= case["min"] <= case["median"] <= case["max"] <= 1
        assert case["updates_per_second"] > 0


@pytest.mark.slow
def test_the_notebooks_program_beside_torchs(tmp_path):
    for name in "aeon", "torch":
        pytest.importorskip(name)  # extra: bench; aeon: .ci/run
    out = tmp_path / "japanese_vowels.json"
    done = run(
        *("-m", "benchmarks.japanese_vowels", "--quick", "--rounds", "1"),
        *("--patience", "0", "--out", str(out)),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cases = json.loads(out.read_text())["cases"]
    assert [name.startswith("torch") for name in cases] == [False, False, True]
    for name, case in cases.items():
        seconds, compiling = case["seconds"]["min"], case["compiling"]["min"]
        assert 0 <= compiling < seconds
        assert (compiling > 0) != name.startswith("torch")
        assert 0 < case["accuracy"][0] <= 1


WORKERS = """
from benchmarks import workers
held = workers.megabytes(400, 4)
assert max(held[2:]) < 1.1 * max(held[:2]), held
"""


def test_what_the_client_of_workers_holds_does_not_grow(ended):
    """With what is done already: its memory by quarters of the groups."""
    assert ended["workers"].returncode == 0, ended["workers"].stderr
