"""The n-gram baseline against a dictionary, and its memory on disk."""

import collections
import json
import math
import pwd

import numpy as np
import pytest

from bptt_jax import tasks


def brute_force(train, held_out, n_symbols, order, smoothing):
    strings, contexts = collections.Counter(), collections.Counter()
    for i in range(order - 1, len(train)):
        context = tuple(train[i - order + 1 : i])
        strings[*context, train[i]] += 1
        contexts[context] += 1
    bits = []
    for i in range(order - 1, len(held_out)):
        context = tuple(held_out[i - order + 1 : i])
        p = (strings[*context, held_out[i]] + smoothing) / (
            contexts[context] + smoothing * n_symbols
        )
        bits.append(-math.log2(p))
    return sum(bits) / len(bits)


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("smoothing", [0.1, 1.0])
@pytest.mark.parametrize("n_symbols", [4, 256])
def test_equals_a_dictionary(order, smoothing, n_symbols):
    rng = np.random.default_rng(order)
    train, held_out = (
        (rng.integers(0, 4, n) * (n_symbols // 4) + n_symbols // 4 - 1).astype(np.uint8)
        for n in (2000, 300)
    )
    bits = tasks.ngram_bits(train, held_out, n_symbols, order, smoothing)
    args = (train.tolist(), held_out.tolist(), n_symbols, order, smoothing)
    assert bits == pytest.approx(brute_force(*args), rel=1e-12)


def test_uniform_text_costs_its_entropy():
    rng = np.random.default_rng(0)
    train, held_out = rng.integers(0, 8, (2, 100_000))
    assert tasks.ngram_bits(train, held_out, 8, order=2) == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"smoothing": 0.0}, "smoothing must be finite and above 0, got 0.0"),
        ({"order": 0}, "order must be a whole number"),
        ({"order": 9}, r"below 2\*\*63, got 256\*\*9"),
        ({"held_out_tokens": np.zeros(3, int)}, "held_out_tokens.*order = 5.*got 3"),
    ],
)
def test_wrong_settings_are_named(changed, message):
    tokens = np.zeros(20, int)
    settings = {"train_tokens": tokens, "held_out_tokens": tokens, "n_symbols": 256}
    with pytest.raises(ValueError, match=message):
        tasks.ngram_bits(**settings | changed)


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(np.random.default_rng(0).choice(list(b"abcd"), 9000).astype("u1"))
    return tasks.text_file(path, batch=2, T=16)


def expected(task):
    parts = (part.tokens(0, 10**6) for part in (task.text.train, task.text.held_out))
    return tasks.ngram_bits(*parts, task.n_in)


def test_is_remembered(task, tmp_path):
    cache = tmp_path / "cache"
    bits = tasks.ngram_baseline(task, cache)
    assert bits == expected(task)
    (file,) = cache.iterdir()
    found = json.loads(file.read_text())
    file.write_text(json.dumps(found | {"bits": 1.25}))
    assert tasks.ngram_baseline(task, cache) == 1.25
    assert tasks.ngram_baseline(task, cache, order=2) != 1.25
    assert tasks.ngram_baseline(task, cache, smoothing=0.2) != 1.25


def test_default_cache(task, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    tasks.ngram_baseline(task)
    assert len(list((tmp_path / "xdg" / "bptt_jax").iterdir())) == 1


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "3", '{"bits": "x"}', '{"bits": NaN}', '{"bits": 1.0}']
)
def test_a_damaged_cache_is_ignored_and_mended(task, tmp_path, damage):
    cache = tmp_path / "cache"
    bits = tasks.ngram_baseline(task, cache)
    (file,) = cache.iterdir()
    file.write_text(damage)
    assert tasks.ngram_baseline(task, cache) == bits
    assert json.loads(file.read_text())["bits"] == bits


def test_a_cache_that_cannot_be_written_is_ignored(task, tmp_path):
    blocked = tmp_path / "a_file"
    blocked.touch()
    assert tasks.ngram_baseline(task, blocked / "cache") == expected(task)


def test_asks_for_text():
    with pytest.raises(ValueError, match="text task"):
        tasks.ngram_baseline(tasks.adding())


def test_stdlib_is_worth_two_bits():
    task = tasks.stdlib()
    both = task.text.train, task.text.held_out
    parts = (part.tokens(0, 20_000_000) for part in both)
    assert 1.5 < tasks.ngram_bits(*parts, task.n_in) < 2.5


def test_bits_per_character_of_a_text_in_utf8(tmp_path):
    """Total bits of what is predicted over the characters there, by a dictionary."""
    words = np.random.default_rng(0).choice(["né ", "漢 ", "a b\n"], 1500)
    path = tmp_path / "text.txt"
    path.write_text("".join(words), encoding="utf-8")
    task = tasks.text_file(path, batch=1, T=16)
    both = task.text.train, task.text.held_out
    train, held = (part.tokens(0, 10**6).tolist() for part in both)
    bits = brute_force(train, held, task.n_in, 5, 0.1) * (len(held) - 4)
    predicted = path.read_bytes()[-len(held) :][4:]
    characters = sum(byte & 0xC0 != 0x80 for byte in predicted)
    found = tasks.ngram_bits_per_character(task, tmp_path / "cache")
    assert found == pytest.approx(bits / characters, rel=1e-9)
    assert found > 1.1 * tasks.ngram_baseline(task, tmp_path / "cache")
    plain = tasks.text_file(_plain(tmp_path), batch=2, T=16)
    assert tasks.ngram_bits_per_character(plain, tmp_path / "c") == expected(plain)


def _plain(folder):
    path = folder / "plain.txt"
    path.write_bytes(np.random.default_rng(0).choice(list(b"abcd"), 9000).astype("u1"))
    return path


def test_without_a_home_nothing_is_remembered(task, tmp_path, monkeypatch):
    """`docker run --user`: no HOME, and a number that no file of users has."""

    def unknown(uid):
        raise KeyError(uid)

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert tasks.ngram_baseline(task) == expected(task)
    assert not list((tmp_path / "here").iterdir())
