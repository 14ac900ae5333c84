"""What was said explicitly stands; an output takes any character; cores are used."""

import os
import subprocess
import sys

import jax
import pytest

from bptt_jax import cli
from bptt_jax._processes import cores
from bptt_jax.cli import _cores, _settings, _sweep


def settings(*options) -> _settings.Settings:
    return _settings.parse(list(options))


def test_quick_is_for_what_was_not_said(tmp_path):
    small = settings("--quick")
    assert (small.hidden, small.steps, small.evaluate_every) == (64, 60, 30)
    assert settings("--quick", "--hidden", "512").hidden == 512
    assert settings("--hidden=512", "--quick").hidden == 512
    assert settings("--quick", "--checkpoint_every", "99").checkpoint_every == 99
    assert settings("--quick", "--steps", "100").steps == 100
    assert settings("--quick", "--epochs", "1").steps is None
    (tmp_path / "c.toml").write_text("hidden = 300\nquick = true\n")
    from_file = settings("--config", str(tmp_path / "c.toml"))
    assert (from_file.hidden, from_file.checkpoint_every) == (300, 30)


def test_a_sweep_takes_quick_and_evaluates_when_it_was_told_to(tmp_path, monkeypatch):
    given = []

    def run(training, space, **options):
        given.append((options["evaluate_every"], options["record"]["settings"]))
        raise ValueError("not now")

    monkeypatch.setattr(_sweep, "_devices", lambda out: None)
    monkeypatch.setattr(_sweep.sweep, "run", run)
    tiny = ("sweep", "--task", "adding", "--lr", "0.1,0.2", "--batch", "3",
            "--length", "8", "--quick", "--out", str(tmp_path / "s"))  # fmt: skip
    for options in ((), ("--evaluate-every", "25", "--hidden", "9")):
        assert cli.main([*tiny, *options]) == 2
    (often, small), (seldom, said) = given
    assert (often, small["hidden"]) == (6, 64)
    assert (seldom, said["hidden"]) == (25, 9)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_options_that_exclude_each_other(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([command, "--text", "a.txt", "--task", "adding"]) == 2
    assert "--text and --task exclude each other" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_how_many_devices_the_user_has_said_stays(monkeypatch, capsys):
    given = []
    monkeypatch.setattr(jax.config, "update", lambda name, n: given.append(n))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "3")
    _cores.use_cores()
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    _cores.use_cores(2)
    assert not given
    monkeypatch.setenv("XLA_FLAGS", "")
    _cores.use_cores(5)
    assert given == [5]
    assert not capsys.readouterr().err


def test_too_late_for_devices_is_said(capsys):
    there = jax.device_count()
    _cores.use_cores(there + 1)
    line = (
        f"bptt-jax: JAX had started before, with {there} of {there + 1} CPU devices\n"
    )
    assert capsys.readouterr().err == line


def program(*arguments, cwd, **environment):
    command = [sys.executable, "-m", "bptt_jax", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, env=os.environ | environment, timeout=200
    )


def test_an_output_that_is_not_utf_8(tmp_path):
    shown = program("--help", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert rb"-- sweep \u2026" in shown.stdout


TINY = ("--hidden", "4", "--length", "8", "--batch", "4", "--steps", "3")


@pytest.mark.slow
def test_a_finished_training_shows_its_sample_on_any_output(tmp_path):
    text = "日本語のテキスト、×と…。" * 4000
    (tmp_path / "日本.txt").write_text(text, encoding="utf-8")
    options = ("--text", "日本.txt", *TINY, "--embedding", "4", "--out", "é×")
    done = program("train", *options, cwd=tmp_path, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u65e5\u672c.txt" in done.stdout
    assert "1 × lstm of 4".encode("latin-1") in done.stdout
    assert (tmp_path / "é×" / "loss.png").exists()


@pytest.mark.slow
@pytest.mark.skipif(cores() == 1, reason="one core has one device")
def test_a_mesh_in_one_process_has_a_device_for_each_core(tmp_path):
    options = ("--task", "adding", "--mesh", "data", *TINY, "--out", "run")
    options = (*options[:-4], "--batch", f"{2 * cores()}", *options[-4:])
    done = program("train", *options, cwd=tmp_path, JAX_PLATFORMS="cpu")
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"{cores()} × cpu".encode() in done.stdout
