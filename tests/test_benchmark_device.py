"""The run that is prepared for a GPU: here on a CPU, and with ways that fail, crash and hang."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from support import apart

ROOT = pathlib.Path(__file__).parent.parent
STANDARD = "lstm (2, 24, 3, 8)"  # of a dry run
BPTT = ["bptt_jax", "bptt_jax, rolled", "bptt_jax, one graph"]
SCANS = ["lax.scan", "lax.scan, one graph"]


def run(*command, path: pathlib.Path = ROOT) -> subprocess.CompletedProcess:
    """In a process of its own, where `benchmarks` is a package."""
    paths = os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_dry_run_of_each_kind(tmp_path):
    out = tmp_path / "device.json"
    words = STANDARD, "agreement, gru", "LSTMs", "offload", "bodies"
    done = run(
        *("-m", "benchmarks.device", "--dry-run", "--seconds", "3000"),
        *("--out", str(out), "--only", *words),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(out.read_text())
    assert result["dry_run"]
    assert result["platform"] == "cpu"
    assert {r["kind"] for r in result["races"]} == {
        *("agreement", "bfloat16", "bodies", "kept", "memory"),
        *("offload", "peers", "stretches", "sweep"),
    }
    assert result["left_out"] == []
    for record in result["races"]:
        assert record["cut"] is None
        for name, row in record["rows"].items():
            assert row.get("agrees", True), (record["name"], name, row)
            assert row["compile_s"] > 0
            assert row["temp_bytes"] >= 0
            timed = record["kind"] not in ("agreement", "memory")
            assert ("gradient_ms" in row) is timed
            assert (
                not timed
                or 0 < row["gradient_ms"]["min"] <= row["gradient_ms"]["median"]
            )
    by_name = {r["name"]: r for r in result["races"]}

    peers = by_name[STANDARD]
    assert [*peers["rows"]] == [SCANS[0], *BPTT, SCANS[1], "flax.linen.RNN"]
    assert [*peers["failed"]] == ["jax.experimental.rnn (cuDNN)"]
    assert [*peers["declined"]] == ["torch (cuDNN)"]
    agreement = by_name["agreement, gru"]["rows"]
    for loop in ("rolled", "unrolled", "one graph"):
        assert agreement[f"{loop}, float32"]["difference"] < 1e-5
        assert 1e-4 < agreement[f"{loop}, bfloat16"]["difference"] < 0.1
    (offload,) = [r for r in result["races"] if r["kind"] == "offload"]
    assert [*offload["rows"]] == ["bptt", "checkpointed"]
    assert "memory of its own" in offload["failed"]["checkpointed, offload"]
    sizes = {"B": 2, "T": 16, "I": 2, "H": 4}
    (sweep,) = [r for r in result["races"] if r["kind"] == "sweep"]
    assert {"models": 4, **sizes}.items() <= sweep.items()
    page = out.with_suffix(".md").read_text()
    assert page in done.stdout
    assert "no time in it means anything" in page


REFUSED = {
    "--seconds -1": "--seconds: expected a number of at least 0, got -1.0",
    "--dry-run --only fortran": "--only: expected words of names of races",
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("device") / "device.json"


@pytest.fixture(scope="module")
def ended(out):
    """What becomes of the commands that are refused, and of code."""
    command = ["-m", "benchmarks.device", "--out", str(out)]
    return apart.run(
        {
            "": command,
            **{words: [*command, *words.split()] for words in REFUSED},
            "page": ["-c", PAGE],
            "bodies": ["-c", BODIES],
        }
    )


def test_without_a_gpu_it_says_so(ended, out):
    done = ended[""]
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    # JAX and its libraries may say what they think of the machine, in lines of their own
    said = [
        line for line in done.stderr.splitlines() if line.startswith("no NVIDIA GPU")
    ]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("no NVIDIA GPU (JAX has cpu alone); --dry-run runs")
    assert [*out.parent.iterdir()] == []


@pytest.mark.parametrize("options", REFUSED)
def test_what_is_not_understood_is_named(options, ended):
    done = ended[options]
    assert done.returncode != 0
    assert REFUSED[options] in done.stderr
    assert "Traceback" not in done.stderr


# Races that are made up, so that nothing is compiled

RACES = """
import os, signal, time
import numpy as np
from benchmarks._contestants import Declined, Program
from benchmarks._race import Race, Way

def about():
    return dict(
        device="none", runtime="none", versions={}, commit=None, dry_run=True, pid=os.getpid()
    )

def program(value=1.0, call=lambda: None):
    answer = np.float32(2), [dict(w=np.array([1.0, value]))], np.ones(3)
    return Program(call, None, None, lambda: answer, 0.5, 10**6)

def way(build):
    return Way(build)

def fails():
    raise RuntimeError("no such\\n kernel")

def lacks():
    import a_library_that_is_not_there

def declines():
    raise Declined("it has no LSTM")

def crashes():
    os.kill(os.getpid(), signal.SIGSEGV)

def hangs():
    time.sleep(1000)

class Second:
    def __init__(self, then):
        self.calls, self.then = 0, then

    def __call__(self):
        self.calls += 1
        if self.calls > 1:
            self.then()

def races():
    good = dict(first=way(program), second=way(lambda: program(1.00001)))
    bad = dict(
        wrong=way(lambda: program(1.01)), nan=way(lambda: program(float("nan"))),
        fails=way(fails), lacks=way(lacks), declines=way(declines),
    )
    all_of = lambda name, **more: Race(
        name, "peers", good | more, "first", seconds=0.01, rounds=(1, 1), about=dict(H=64)
    )
    return [
        all_of("bad", **bad),
        all_of("crash", crashes=way(crashes), third=way(program)),
        all_of("late failure", late=way(lambda: program(call=Second(fails)))),
        all_of("late crash", late=way(lambda: program(call=Second(crashes)))),
        all_of("hang", hangs=way(hangs), third=way(program)),
        all_of("good"),
        all_of("alone")._replace(alone=True),
    ]
"""
RUN = """
import json, pathlib, sys
import made_up
from benchmarks import _apart, device

out, seconds, patience, names = pathlib.Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
process = _apart.Process(made_up.races, made_up.about)
by_name = {race.name: race for race in made_up.races()}
races = [by_name[name] for name in names]
begun = process.start()
device.run(races, process, begun, out, seconds=seconds, patience=patience)
print("processes:", begun["pid"], process.about["pid"])
"""


def made_up(folder, *names, seconds=600.0, patience=60.0):
    """The result, its records by name, and whether the first process was the last one."""
    (folder / "made_up.py").write_text(RACES)
    out = folder / "device.json"
    at = str(out), json.dumps(seconds), json.dumps(patience), json.dumps(names)
    done = run("-c", RUN, *at, path=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert {p.name for p in folder.iterdir()} - {"__pycache__"} == {
        *("made_up.py", "device.json", "device.md")
    }
    first, last = done.stdout.splitlines()[-1].split()[1:]
    return result, {r["name"]: r for r in result["races"]}, first == last


def test_what_fails_is_written_down_and_the_rest_goes_on(tmp_path):
    result, found, one_process = made_up(tmp_path, "bad", "late failure", "good")
    assert one_process
    bad = found["bad"]
    assert bad["failed"] == dict(fails="RuntimeError: no such kernel")
    assert bad["declined"]["declines"] == "it has no LSTM"
    assert "a_library_that_is_not_there" in bad["declined"]["lacks"]
    rows = bad["rows"]
    assert [*rows] == ["first", "second", "wrong", "nan"]
    assert [r.get("agrees") for r in rows.values()] == [None, True, False, False]
    assert rows["wrong"]["difference"] == 0.01
    assert rows["nan"]["difference"] is None
    assert all(r["gradient_ms"]["calls"] == 2 for r in rows.values())
    late = found["late failure"]
    assert [*late["rows"]] == ["first", "second", "late"]
    assert not any("gradient_ms" in row for row in late["rows"].values())
    assert late["failed"] == {"all, in turns": "RuntimeError: no such kernel"}
    assert "gradient_ms" in found["good"]["rows"]["second"]


def test_a_process_that_ends_costs_the_way_that_ended_it(tmp_path):
    result, found, one_process = made_up(tmp_path, "crash", "good")
    assert not one_process
    crash = found["crash"]
    assert crash["failed"] == dict(crashes="its process ended by signal 11")
    assert [*crash["rows"]] == ["first", "second", "third"]
    assert all("gradient_ms" in row for row in crash["rows"].values())
    assert found["good"]["failed"] == {}


@pytest.mark.slow
def test_one_that_ends_while_all_are_timed_costs_the_times(tmp_path):
    result, found, _ = made_up(tmp_path, "late crash", "good")
    late = found["late crash"]
    assert late["failed"] == {"all, in turns": "its process ended by signal 11"}
    assert [*late["rows"]] == ["first", "second", "late"]
    assert "gradient_ms" in found["good"]["rows"]["second"]


@pytest.mark.slow
def test_what_hangs_is_stopped(tmp_path):
    result, found, _ = made_up(tmp_path, "hang", "good", patience=10.0)
    hang = found["hang"]
    assert hang["failed"] == dict(hangs="stopped: nothing came in 10 s")
    assert all("gradient_ms" in row for row in hang["rows"].values())
    assert [*hang["rows"]] == ["first", "second", "third"]
    assert "gradient_ms" in found["good"]["rows"]["second"]


@pytest.mark.slow
def test_when_the_time_is_up_it_stops_where_it_is(tmp_path):
    result, found, _ = made_up(tmp_path, "good", "hang", "alone", seconds=15.0)
    assert "gradient_ms" in found["good"]["rows"]["second"]
    assert found["hang"]["cut"] == "the time was up at hangs"
    assert [*found["hang"]["rows"]] == ["first", "second"]
    assert result["left_out"] == ["alone"]
    page = (tmp_path / "device.md").read_text()
    assert "- hang: the time was up at hangs" in page
    assert "## No time was left for\n\nalone." in page


def test_without_time_there_is_the_first_race_and_the_file_is_whole(tmp_path):
    result, found, _ = made_up(tmp_path, "good", "bad", "alone", seconds=0.0)
    assert [*found] == ["good"]
    assert found["good"]["cut"] is None
    assert "gradient_ms" in found["good"]["rows"]["second"]
    assert result["left_out"] == ["bad", "alone"] or result["left_out"] == [
        "good",
        "alone",
    ]


@pytest.mark.slow
def test_one_that_wants_it_has_a_fresh_process(tmp_path):
    result, found, one_process = made_up(tmp_path, "good", "alone")
    assert not one_process
    row = found["alone"]["rows"]["second"]
    assert row["memory"] == dict(before=None, after=None)  # a CPU does not tell


# What is made of the figures

PAGE = """
import json
from benchmarks import _device_report as report

def row(ms, temp, **more):
    times = {} if ms is None else dict(gradient_ms=dict(min=ms, median=2 * ms, calls=6))
    return dict(compile_s=1.5, temp_bytes=temp, first_call_s=0.1, **times, **more)

def peers(name, H, ours, **more):
    rows = {"lax.scan": row(8.0, 10**8), "bptt_jax": row(ours, 10**7 * H // 64, agrees=True,
            difference=1e-3), **more}
    return dict(name=name, kind="peers", reference="lax.scan", H=H, rows=rows,
                failed={}, declined={}, cut=None, seconds=3.0)

def memory(name, before, after):
    row = dict(temp_bytes=10**6, memory=dict(before=before, after=after))
    return dict(name=f"memory, a, {name}", kind="memory", reference=name, rows={name: row},
                failed={}, declined={}, cut=None)

use = lambda now, most: dict(bytes_in_use=now, peak_bytes_in_use=most)
rows = {"scan, float32": row(None, 1),
        "rolled, float32": row(None, 1, difference=1e-6, agrees=True),
        "unrolled, float32": row(None, 1, difference=None, agrees=False)}
result = dict(device="H", runtime="R", versions=dict(jax="1"), commit=None, dry_run=False,
    left_out=["z"], races=[
    peers("a", 64, 2.0), peers("b", 256, 4.0, odd=row(16.0, None, difference=0.5, agrees=False)),
    peers("c", 1024, 8.0) | dict(failed=dict(x="Y: z")),
    memory("m", use(10**6, 10**6), use(10**6, 9 * 10**6)),
    memory("n", use(10**6, 5 * 10**6), use(10**6, 5 * 10**6)), memory("o", None, None),
    dict(name="agreement, gru", kind="agreement", reference="scan, float32", rows=rows,
         failed={}, declined={}, cut=None)])
a, b, c = result["races"][:3]
assert report.faster(b, "bptt_jax") == 2 and report.faster(b, "odd", "median") == 0.5
assert report.faster(b, "nobody") is None
page = report.page(json.loads(json.dumps(result)))
for line in (
    "| times as fast as `lax.scan`, H ≤ 256 | ≥ 3 | 2.00, b |",
    "| temporary memory over that of `lax.scan` | < 1 | 1.60, c |",
    "| a | 4.00 (4.00) |  |",
    "| b | 2.00 (2.00) | 0.50 (0.50) |",
    "| odd | 16.000 (32.000) | 0.50 (0.50) |  | 1.5 | 0.10 | **5.0e-01** |",
    "| a | m | 1.0 | 8.0 |", "| a | n | 1.0 | ≤ 4.0 |", "| a | o | 1.0 | not told |",
    "| agreement, gru | 1.0e-06 | **NaN** |",
    "- c: x failed: Y: z", "z.",
):
    assert line in page.splitlines(), (line, page)
assert "dry run" not in page and "commit not known" in page
assert report.line(b) == (
    "[3 s] b: lax.scan 8 ms, bptt_jax 4 ms, odd 16 ms; APART: odd"
)
"""


def test_the_page_says_what_the_figures_say(ended):
    assert ended["page"].returncode == 0, ended["page"].stderr


BODIES = """
import functools
import jax, jax.numpy as jnp
from jax import export
from benchmarks import _lowering
from bptt_jax import cells, unrolls
from bptt_jax.loops import _unrolled, preferred, step_by_step

cell = cells.lstm(3, 4)
at = jax.eval_shape(lambda: (cell.init(jax.random.key(0)), jnp.zeros((64, 2, 3))))

def text(lowering, chunk, platform):
    def loss(params, xs):
        ys = unrolls.bptt(cell, params, cell.init_carry(params, (2,)), xs, chunk=chunk)[1]
        return (ys**2).sum()

    with lowering.around(), preferred(step_by_step):
        jitted = jax.jit(jax.value_and_grad(loss))
        return export.export(jitted, platforms=[platform])(*at).mlir_module()

def loops(lowering, chunk=16, platform="cuda"):
    return text(lowering, chunk, platform).count("stablehlo.while")

# two loops over stretches, and in each one over its steps where they are not all in a body
assert loops(_lowering.PLAIN) == 2
assert loops(_lowering.ROLLED) == 4
assert loops(_lowering.PLAIN) == 2
assert loops(_lowering.PLAIN, 32) == 4
assert loops(_lowering.of_bodies(32), 32) == 2
one, four, eight = (len(text(_lowering.of_bodies(n), 16, "cuda")) for n in (1, 4, 8))
assert one < four < eight
assert loops(_lowering.of_bodies(16), 16, "cpu") == loops(_lowering.ROLLED, 16, "cpu") == 4
assert _unrolled.LONGEST == 16
"""


def test_bodies_are_as_long_as_is_said(ended):
    assert ended["bodies"].returncode == 0, ended["bodies"].stderr
