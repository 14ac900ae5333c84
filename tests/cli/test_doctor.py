"""`bptt-jax doctor`: what a bug report needs, and nothing private."""

import os
import pathlib
import platform
import re

import jax
import pytest

from bptt_jax import cli, loops, verify
from bptt_jax.cli import _doctor


@pytest.fixture
def told(monkeypatch, capsys):
    def run(*options, canary=lambda: [verify.Finding("A", True, 0.0, "", 0.0)]):
        monkeypatch.setattr(verify, "canary", canary)
        status = cli.main(["doctor", *options])
        parts = capsys.readouterr().out.strip().split("\n\n")
        lines = [part.splitlines() for part in parts]
        return status, {name: [x.strip() for x in rest] for name, *rest in lines}

    return run


def test_all_parts(told, monkeypatch):
    monkeypatch.delenv("BPTT_JAX_LOOP", raising=False)
    status, parts = told("--seconds", "0.01")
    assert status == 0
    assert list(parts) == [
        "versions", "devices", "environment", "folders", "loops", "compiler", "speed"
    ]  # fmt: skip
    assert f"jax {jax.__version__}, " in parts["versions"][1]
    assert f"Python {platform.python_version()}, " in parts["versions"][0]
    assert parts["devices"][0] == "1 × cpu (cpu)"
    assert "cores for this process" in parts["devices"][1]
    assert parts["compiler"][0] == "A: right (error 0.0e+00)"
    (ratio,) = re.findall(r"is (\d+\.\d\d) times as fast", parts["speed"][0])
    assert 0 < float(ratio) < 1e3
    by_loop = dict(line.rsplit(": ", 1) for line in parts["loops"])
    cells = [name for names in by_loop.values() for name in names.split("; ")]
    want = [name for name, member in verify.CELLS.items() if not member.alike]
    assert sorted(cells) == sorted(want)
    assert "gru" in by_loop["loops.native"].split("; ")
    (why,) = (key for key, names in by_loop.items() if "layer norm" in names)
    assert why.startswith("loops.step_by_step (not loops.native: ")
    assert "reduce_sum" in why


def test_the_environment_decides_what_is_said_of_loops(told, monkeypatch):
    monkeypatch.setenv("BPTT_JAX_LOOP", "step_by_step")
    _, parts = told("--seconds", "0")
    assert "BPTT_JAX_LOOP=step_by_step" in parts["environment"]
    assert all(line.startswith("loops.step_by_step") for line in parts["loops"])
    assert "speed" not in parts


def test_nothing_private(told, monkeypatch, tmp_path):
    home = tmp_path / "somebody"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={home}/dump")
    monkeypatch.setenv("A_SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("USER", "mallory")
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "her-machine:1234")
    monkeypatch.setattr(platform, "node", lambda: "her-machine")
    _, parts = told("--seconds", "0")
    text = str(parts)
    for private in (
        "somebody",
        "hunter2",
        "mallory",
        "her-machine",
        str(pathlib.Path.cwd()),
    ):
        assert private not in text
    assert "JAX_COORDINATOR_ADDRESS=(an address)" in parts["environment"]
    assert "XLA_FLAGS=--xla_dump_to=~/dump" in parts["environment"]
    assert parts["folders"][0] == "of this library: ~/.cache/bptt_jax, not there"


def test_a_folder_that_cannot_be_written(told, monkeypatch, tmp_path):
    (tmp_path / "bptt_jax" / "native").mkdir(parents=True)
    (tmp_path / "bptt_jax" / "native" / "one.o").write_bytes(bytes(2**20))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    _, parts = told("--seconds", "0")
    assert parts["folders"][0].endswith("bptt_jax, CANNOT be written")
    assert parts["folders"][1] == "kernels in it: 1, 1.0 MiB"


def test_what_is_broken_is_told_and_the_rest_goes_on(told, monkeypatch):
    def fails():
        raise RuntimeError("no such\ninstruction")

    def supports(*_):
        raise ValueError("is broken")

    monkeypatch.setattr(loops, "native", loops.native._replace(supports=supports))
    status, parts = told("--seconds", "0", canary=fails)
    assert status == 1
    assert parts["compiler"] == ["FAILED: RuntimeError: no such instruction"]
    assert parts["loops"] == ["FAILED: ValueError: is broken"]
    assert len(parts["versions"]) >= 2


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf"])
def test_no_duration(seconds, capsys):
    assert cli.main(["doctor", "--seconds", seconds]) == 2
    assert "--seconds: expected" in capsys.readouterr().err


def test_in_turns_gives_each_as_many():
    called = []
    times = _doctor._in_turns(
        [lambda: called.append("a"), lambda: called.append("b")], 0
    )
    assert [len(each) for each in times] == [3, 3]
    assert called == ["a", "b"] * 4  # once before anything is timed
