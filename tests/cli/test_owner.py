"""A folder in which another process works is refused, and nothing in it is changed."""

import json
import os
import re
import subprocess
import sys

import optax
import pytest

from bptt_jax import cli, train
from support import sweeping, training
from support.training import listing

OWNER = """
import contextlib, pathlib, sys
from bptt_jax import _files

with contextlib.ExitStack() as owned:
    for folder in sys.argv[1:]:
        owned.enter_context(_files.locked(pathlib.Path(folder)))
    print("owned", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders that another process owns, a sweep that has ended among them."""
    folder = tmp_path_factory.mktemp("owned")
    sweeping.go(folder / "swept", steps=20)
    folders = [folder / "run", folder / "swept"]
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, *folders],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert owner.stdout.readline() == "owned\n"
    yield folder, owner.pid
    owner.communicate("")
    assert owner.returncode == 0
    assert [path.name for path in folder.iterdir()] == ["swept"]


TINY = ("--task", "adding", "--hidden", "4", "--length", "8", "--batch", "3")


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize("out", ["run", "swept"])
def test_commands(command, out, folder, capsys, monkeypatch):
    from bptt_jax.cli import _sweep

    monkeypatch.setattr(_sweep, "_devices", lambda out: None)
    folder, pid = folder
    before = listing(folder)
    assert cli.main([command, *TINY, "--steps", "4", "--out", str(folder / out)]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.count("\n") == 1
    host = re.escape(os.uname().nodename)
    assert re.fullmatch(
        rf"bptt-jax: \S+/{out} is in use by process {pid} on {host} since 20\S+ \S+; "
        "wait for it or choose another folder\n",
        said.err,
    )
    assert listing(folder) == before


def test_from_python(folder):
    folder, pid = folder
    before = listing(folder)
    with pytest.raises(ValueError, match=f"is in use by process {pid} on"):
        sweeping.go(folder / "swept", steps=20)
    task, model, estimator, _ = training.adding()
    options = train.RunOptions(updates=4)
    with pytest.raises(ValueError, match=f"is in use by process {pid} on"):
        train.run(task, model, estimator, optax.sgd(0.1), options, folder / "run")
    assert listing(folder) == before


def test_who_only_reads_needs_no_lock(folder, capsys):
    folder, _ = folder
    assert cli.main(["sweep", "show", str(folder / "swept")]) == 0
    assert "15 settings" in capsys.readouterr().out
    assert cli.main(["sample", str(folder / "run")]) == 2
    assert "is not a run: it has no config.json" in capsys.readouterr().err
    assert json.loads((folder / "run" / ".bptt_jax.lock").read_text())["pid"]


@pytest.mark.slow
def test_the_same_process_goes_on_after_a_stop(tmp_path):
    """A notebook's cell that was interrupted, and run again."""
    job = training.adding()
    with pytest.raises(KeyboardInterrupt):
        job.run(
            tmp_path, train.RunOptions(updates=20),
            progress=train.Progress(interrupted=lambda: True),
        )  # fmt: skip
    assert int(job.run(tmp_path, train.RunOptions(updates=20)).state.position) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint", "metrics.jsonl", "run.json", "timings.jsonl",
    ]  # fmt: skip
