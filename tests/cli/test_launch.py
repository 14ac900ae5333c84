"""`bptt-jax launch`: several processes, one table, and an end if one of them ends."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from bptt_jax import _files, cli, sweep
from support import compiled

LIMIT = 150  # seconds; what hangs is killed
SWEEP = (
    "sweep", "--task", "adding", "--cell", "gru", "--lr", "1e-3,1e-1", "--seed", "0:2",
    "--hidden", "4", "--length", "8", "--batch", "3", "--lanes", "1",
)  # fmt: skip


def started(launch: tuple, out: pathlib.Path, steps: int, **environment):
    command = ("launch", *launch, "--", *SWEEP, "--steps", steps, "--out", out)
    return subprocess.Popen(
        [sys.executable, "-m", "bptt_jax", *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | compiled.FLAGS | environment,
    )  # fmt: skip


def ended(process) -> tuple[str, str]:
    try:
        return process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def launched(launch: tuple, out: pathlib.Path, steps: int, **environment):
    process = started(launch, out, steps, **environment)
    said, errors = ended(process)
    assert process.returncode == 0, errors
    assert "4 settings, 0 diverged" in said
    return sweep.load(out).table


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return launched((), tmp_path_factory.mktemp("alone") / "s", 20)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_give_one_table(tmp_path, processes, alone):
    """Bit for bit: a lane is alone on its device in each."""
    found = launched(("--processes", processes), tmp_path / "s", 20)
    assert found.equals(alone)


@pytest.mark.slow
def test_other_hosts_are_started_by_ssh(tmp_path, alone):
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text('#!/bin/sh\necho "$2" >> "$SSH_LOG"\nexec sh -c "$3"\n')
    ssh.chmod(0o755)
    found = launched(
        ("--hosts", "127.0.0.1,far"), tmp_path / "s", 20,
        PATH=f"{ssh.parent}:{os.environ['PATH']}", SSH_LOG=str(tmp_path / "log"),
    )  # fmt: skip
    assert sorted((tmp_path / "log").read_text().split()) == ["127.0.0.1", "far"]
    assert found.equals(alone)


def process_of(number: int, out: pathlib.Path) -> int:
    """The pid of the process with a number among those of a sweep."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        mine = f"BPTT_JAX_PROCESS={number}".encode() in variables
        if mine and str(out).encode() in words:
            return int(folder.name)
    raise AssertionError(f"no process {number}")


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/environ").exists(), reason="no /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_is_killed_ends_all_and_the_same_command_goes_on(tmp_path, victim):
    out, steps = tmp_path / "s", 12_000
    process = started(("--processes", 2), out, steps)
    until = time.monotonic() + LIMIT
    rows = out / "rows.jsonl"
    while not (rows.exists() and rows.read_text().count("\n") > 5):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    owner = process_of(0, out)  # and not the one that has started it
    assert json.loads((out / ".bptt_jax.lock").read_text())["pid"] == owner
    os.kill(process_of(victim, out), signal.SIGKILL)
    _, errors = ended(process)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert f"process {victim} on localhost ended with signal 9" in errors
    assert "all 2 were stopped" in errors
    with pytest.raises(AssertionError):
        process_of(1 - victim, out)
    first = rows.read_text().split("\n")[0]
    table = launched(("--processes", 2), out, steps)
    assert table.num_rows == 4 * 48
    assert rows.read_text().startswith(first)


TRAIN = (
    "train", "--task", "adding", "--cell", "gru", "--hidden", "8", "--length", "10",
    "--batch", "4", "--steps", "30", "--evaluate-every", "10", "--checkpoint-every", "10",
)  # fmt: skip


def trained(out: pathlib.Path, *options, launch: tuple = ()) -> list[dict]:
    """The lines of the metrics of a training run."""
    command = [
        sys.executable,
        "-m",
        "bptt_jax",
        *launch,
        *TRAIN,
        *options,
        "--out",
        out,
    ]
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=os.environ | compiled.FLAGS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held out") >= 1
    return [
        json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.mark.slow
def test_one_large_model_over_devices_and_processes(tmp_path):
    """The numbers of one device, to rounding; the same after a stop."""
    alone = trained(tmp_path / "alone")
    devices = trained(tmp_path / "devices", "--mesh", "data")
    launch = ("launch", "--processes", "2", "--")
    processes = trained(tmp_path / "processes", "--mesh", "data", launch=launch)
    for found in (devices, processes):
        assert [line.keys() for line in found] == [line.keys() for line in alone]
        for a, b in zip(alone, found, strict=True):
            for name in a:
                assert b[name] == pytest.approx(a[name], rel=2e-4), (a, b)
    again = trained(tmp_path / "processes", "--mesh", "data", launch=launch)
    assert again == processes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--processes 2", "expected -- sweep … or -- train …"),
        ("--processes 0 -- sweep", "--processes must be at least 1"),
        ("--hosts a,,b -- sweep", "--hosts a,,b: an empty name"),
        ("--processes 2 -- sample x", "expected -- sweep"),
        ("--proceses 2 -- sweep", "did you mean --processes"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(options, said, capsys):
    assert cli.main(["launch", *options.split()]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert said in line


@pytest.mark.slow
def test_what_is_wrong_in_all_processes_is_said_once(tmp_path):
    (tmp_path / "s").write_text("")
    process = started(("--processes", 2), tmp_path / "s", 20)
    _, errors = ended(process)
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert "is a file" in errors


@pytest.mark.slow
def test_a_folder_in_use_is_refused(tmp_path):
    with _files.locked(tmp_path / "s"):
        process = started(("--processes", 2), tmp_path / "s", 20)
        _, errors = ended(process)
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert f"is in use by process {os.getpid()} on " in errors
    assert not list(tmp_path.iterdir())
