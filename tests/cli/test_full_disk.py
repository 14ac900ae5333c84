"""A full disk: one line, and what was saved is whole."""

import os
import pathlib
import shutil
import subprocess
import sys

import orbax.checkpoint as ocp
import pytest

from bptt_jax import cli, train

PATHS = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "JAX_PLATFORMS": "cpu"}
OPTIONS = (
    "--task adding --cell gru --length 8 --steps 40 --hidden 24 --batch 4 "
    "--evaluate-every 5 --checkpoint-every 5"
).split()


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
disk=$1; shift
mount -t tmpfs -o size=400k tmpfs $disk
"$@"; echo status $?
mount -o remount,size=40m $disk
"$@"; echo status $?
cp $disk/run/metrics.jsonl $disk/..
"""


@pytest.mark.slow
@pytest.mark.skipif(not own_mounts(), reason="no mounts of one's own")
def test_with_room_again_the_same_command_goes_on(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    program = [sys.executable, "-m", "bptt_jax", "train", *OPTIONS]
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", SCRIPT, "-", disk, *program, "--out",
         disk / "run"],
        capture_output=True, text=True, env=os.environ | PATHS,
    )  # fmt: skip
    assert done.stdout.count("status") == 2
    assert "status 2" in done.stdout
    assert "status 0" in done.stdout
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
    assert cli.main(["train", *OPTIONS, "--out", str(tmp_path / "whole")]) == 0
    whole = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
