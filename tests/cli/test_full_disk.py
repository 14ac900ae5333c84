"""A full disk is told in one line that names what could not be written."""

import pathlib

import orbax.checkpoint as ocp
import pytest

from bptt_jax import cli, train

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
