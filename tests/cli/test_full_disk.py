"""A full disk: one line, and what was saved is whole."""

import os
import pathlib
import resource
import shutil
import subprocess
import sys
import threading
import time

import absl.logging
import orbax.checkpoint as ocp
import pytest

from bptt_jax import cli, train
from support import compiled, tiers
from support.kept_programs import ENVIRONMENT

PATHS = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "JAX_PLATFORMS": "cpu"}
OPTIONS = (
    "--task adding --cell gru --length 8 --steps 40 --hidden 24 --batch 4 "
    "--evaluate-every 5 --checkpoint-every 5"
).split()


@pytest.mark.slow
def test_it_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    """Whatever words the checkpoint library has for it."""

    def save(manager, step, **options):
        raise ValueError(
            "INTERNAL: Error writing x [OS error 28: No space left on device]"
        )

    monkeypatch.setattr(ocp.CheckpointManager, "save", save)
    out = tmp_path / "run"
    assert cli.main(["train", *OPTIONS, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said == f"bptt-jax: {out / 'checkpoint'}: No space left on device\n"


def test_threads_that_fail_later_are_waited_for(tmp_path, monkeypatch, caplog):
    """The library raises what failed first; each of the others tells it on its own."""
    level = absl.logging.get_absl_logger().level
    later = []

    def fail():
        time.sleep(0.3)
        absl.logging.error("No space left on device")
        later.append("failed")

    def save(manager, step, **options):
        threading.Thread(target=fail).start()
        raise ValueError("No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "save", save)
    assert cli.main(["train", *OPTIONS, "--out", str(tmp_path / "run")]) == 2
    assert later == ["failed"]
    assert not caplog.records
    assert absl.logging.get_absl_logger().level == level


def test_what_the_error_came_of_counts(tmp_path, monkeypatch, capsys):
    def save(manager, step, **options):
        try:
            raise ValueError("[OS error 28: No space left on device]")
        finally:
            raise RuntimeError("Event loop is closed")

    monkeypatch.setattr(ocp.CheckpointManager, "save", save)
    out = tmp_path / "run"
    assert cli.main(["train", *OPTIONS, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said == f"bptt-jax: {out / 'checkpoint'}: No space left on device\n"


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no such device")
def test_of_metrics_the_file_is_named():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        train.MetricsFile(pathlib.Path("/dev/full")).append([{"step": 1}])


def own_mounts() -> bool:
    """Whether this user may have a small disk of his own, without asking anybody."""
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(tried, capture_output=True).returncode == 0


SCRIPT = """
disk=$1; size=$2; shift 2
mount -t tmpfs -o size=$size tmpfs $disk
"$@"; echo status $?
mount -o remount,size=40m $disk
"$@"; echo status $?
cp $disk/run/metrics.jsonl $disk/..
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The metrics of a run that has had room."""
    out = tmp_path_factory.mktemp("whole")
    assert cli.main(["train", *OPTIONS, "--out", str(out)]) == 0
    return (out / "metrics.jsonl").read_bytes()


@pytest.mark.skipif(not own_mounts(), reason="no mounts of one's own")
@pytest.mark.skipif(resource.getpagesize() != 4096, reason="a file takes more")
@pytest.mark.parametrize(
    ("size", "file"),
    [
        tiers.slow(("4k", "config.json"), False),
        tiers.slow(("8k", "run.json"), False),
        tiers.slow(("12k", "metrics.jsonl"), False),
        tiers.slow(("12k", "tensorboard"), False),
        tiers.slow(("100k", "checkpoint"), False),
        tiers.slow(("400k", "checkpoint"), False),
        tiers.slow(("500k", "checkpoint"), False),
        pytest.param("300k", "checkpoint", marks=pytest.mark.release),
        pytest.param("450k", "checkpoint", marks=pytest.mark.release),
    ],
)
def test_with_room_again_the_same_command_goes_on(tmp_path, whole, size, file):
    """Wherever it is full: in a save, which of its threads fails first is chance."""
    disk = tmp_path / "disk"
    disk.mkdir()
    program = [sys.executable, "-m", "support.compiled", "bptt_jax", "train", *OPTIONS]
    if file == "tensorboard":
        pytest.importorskip("tensorboardX")
        program.append("--tensorboard")
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", SCRIPT, "-", disk, size, *program, "--out",
         disk / "run"],
        capture_output=True, text=True,
        env={**os.environ, **PATHS, **ENVIRONMENT, **compiled.environment()},
    )  # fmt: skip
    assert done.stdout.count("status") == 2
    assert "status 2" in done.stdout
    assert "status 0" in done.stdout
    assert done.stderr == f"bptt-jax: {disk / 'run' / file}: No space left on device\n"
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
