"""A line that cannot be read costs no other, and nothing goes away without a word."""

import json
import pathlib
import shutil

import pytest

from bptt_jax import train
from bptt_jax.train._metrics import ranges
from support.training import adding, listing

OPTIONS = train.RunOptions(
    updates=6, per_dispatch=2, evaluate_every=2, evaluate_batches=2
)
LINES = [{"step": step, "loss": 1 / step} for step in range(1, 106)]


def text(line) -> bytes:
    return json.dumps(line).encode()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(text(line) + b"\n" for line in LINES))
    return train.MetricsFile(path)


def replaced(file, number: int, by: bytes) -> None:
    lines = file.path.read_bytes().split(b"\n")
    lines[number - 1] = by
    file.path.write_bytes(b"\n".join(lines))


DAMAGES = {
    "cut": b'{"step": 11, "lo',
    "bytes": b"\x00\xff\xfe",
    "a number": b"7",
    "a list": b"[1, 2]",
    "without a step": b'{"loss": 1.0}',
    "half a step": b'{"step": 10.5}',
    "no number": b'{"step": NaN}',
    "true": b'{"step": true}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_can_be_read_stays_and_what_cannot_is_kept_aside(name, file):
    replaced(file, 11, DAMAGES[name])
    others = [line for line in LINES if line["step"] != 11]
    assert file.lines() == others
    said = []
    assert file.resume(105, said.append) == others
    assert file.path.read_bytes() == b"".join(text(line) + b"\n" for line in others)
    beside = file.path.with_name("metrics.jsonl.damaged")
    assert beside.read_bytes() == DAMAGES[name] + b"\n"
    assert said == [
        f"{file.path} has lines that cannot be read (line 11); they are in "
        "metrics.jsonl.damaged now, all others stay"
    ]
    assert file.resume(105, said.append) == others
    assert len(said) == 1
    assert train.missing(others, 105) == [11]


@pytest.mark.parametrize("blank", [b"", b"  ", b"\r"])
def test_a_blank_line_is_nothing(blank, file):
    lines = file.path.read_bytes().split(b"\n")
    file.path.write_bytes(b"\n".join([*lines[:10], blank, *lines[10:]]))
    assert file.resume(105, pytest.fail) == LINES


def test_a_whole_number_with_a_point_is_a_step(file):
    replaced(file, 5, b'{"step": 5.0, "loss": 0.2}')
    assert file.resume(105, pytest.fail) == LINES


def test_what_is_computed_again_is_no_loss(file):
    """Lines behind the checkpoint, the one in which a process was killed among them."""
    file.path.write_bytes(file.path.read_bytes() + b'{"step": 106, "lo')
    assert file.resume(100, pytest.fail) == LINES[:100]
    assert [path.name for path in file.path.parent.iterdir()] == ["metrics.jsonl"]


def test_a_cut_line_of_a_step_before_the_checkpoint(file):
    file.path.write_bytes(file.path.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="cannot be read .the last, cut."):
        assert file.resume(105) == LINES[:-1]
    beside = file.path.with_name("metrics.jsonl.damaged")
    assert beside.read_bytes().startswith(b'{"step": 105, ')


def test_ranges():
    assert ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"


def test_a_run_goes_on_with_all_that_can_be_read(tmp_path):
    out = tmp_path / "run"
    adding().run(out, OPTIONS)
    path, aside = out / "metrics.jsonl", tmp_path / "aside"
    whole = path.read_bytes().split(b"\n")
    before = listing(shutil.copytree(out, aside))
    path.write_bytes(b"\n".join([*whole[:1], whole[1][:9], b"", *whole[2:]]))
    said = []
    done = adding().run(out, OPTIONS, progress=train.Progress(message=said.append))
    assert int(done.state.position) == 6
    assert said[0].startswith(f"{path} has lines that cannot be read (line 2);")
    assert said[1] == f"{path} lacks steps 2 of 6"
    assert path.read_bytes().split(b"\n") == [*whole[:1], *whole[2:]]
    beside = out / "metrics.jsonl.damaged"
    assert beside.read_bytes() == whole[1][:9] + b"\n"
    beside.unlink()
    path.write_bytes((aside / "metrics.jsonl").read_bytes())
    assert listing(pathlib.Path(out)) == before
