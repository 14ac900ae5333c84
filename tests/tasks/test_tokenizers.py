"""Text by other libraries' tokenizers: tokens, bits, what is kept, what is refused."""

import io
import pickle
import types

import numpy as np
import optax
import pytest
import sentencepiece
import tiktoken
import tokenizers

from bptt_jax import cells, estimators, models, tasks, train

WORDS = np.random.default_rng(0).choice(
    ["the cat ", "sat on ", "the mat.\n", "é漢 ", "naïve 😀 ", "and so on\n"], 3000
)
TEXT = "".join(WORDS)
PARTS = TEXT[: len(TEXT) // 2], TEXT[len(TEXT) // 2 :]
B, T = 4, 16


def of_tokenizers():
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=270, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["the cat sat on the mat and so on\n"], trainer)
    return made  # é, 漢 and 😀 are bytes


def of_sentencepiece():
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()), model_writer=file, vocab_size=80,
        hard_vocab_limit=False, minloglevel=2, character_coverage=1.0,
        remove_extra_whitespaces=False, normalization_rule_name="identity",
        user_defined_symbols=["\n"],
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())


def of_tiktoken():
    ranks = {bytes([i]): i for i in range(256)} | {b"th": 256, b"the": 257, b"at": 258}
    special = {"<|end|>": 259}
    return tiktoken.Encoding(
        "mine", pat_str=r"\w+|\W", mergeable_ranks=ranks, special_tokens=special
    )


MADE = {f.__name__: f for f in (of_tokenizers, of_sentencepiece, of_tiktoken)}


def size(tokenizer):
    if isinstance(tokenizer, tiktoken.Encoding):
        return tokenizer.n_vocab
    said = getattr(tokenizer, "get_vocab_size", None) or tokenizer.vocab_size
    return said()


@pytest.fixture(params=MADE)
def tokenizer(request):
    return MADE[request.param]()


def test_a_task_by_a_tokenizer(tokenizer):
    task = tasks.text(PARTS, batch=B, T=T, tokenizer=tokenizer)
    text = task.text
    assert task.n_in == task.n_out == size(tokenizer)
    assert (text.symbol, text.per, text.symbols) == ("token", "character", None)
    assert task.tokens
    assert task.stateful
    for part, said in zip((text.train, text.held_out), PARTS, strict=True):
        tokens = part.tokens(0, part.length)
        assert text.decode(tokens) == said
        assert len(tokens) < len(said.encode())
    # a batch has the text's tokens
    first = task.train.read(0, 1).tokens[0]
    np.testing.assert_array_equal(first[:, 0], text.train.tokens(0, T + 1))
    assert text.decode(text.encode("the mat.\n")) == "the mat.\n"


def test_bits_are_those_of_characters(tokenizer):
    """Total bits over characters, whatever a token is."""
    task = tasks.text(PARTS, batch=B, T=T, tokenizer=tokenizer)
    for part, said in zip((task.text.train, task.text.held_out), PARTS, strict=True):
        characters = part.characters(0, 1, part.length)
        np.testing.assert_allclose(characters, [len(said)], rtol=1e-5)
        n, bits = part.windows, 3.0 * part.windows * B * T
        # all but what fills no window
        used = len(said) * (n * B * T) / part.length
        found = tasks.bits(part, np.full(n, 3 * np.log(2)))
        assert found == pytest.approx(bits / used, rel=0.02)
    # a window by itself, where no character is cut: what it says is as long
    for window in range(20):
        start = window * T + 1
        said = task.text.decode(task.text.train.tokens(start, start + T))
        if said.isascii():
            counted = task.text.train.characters(start, 1, T)
            assert counted[0] == pytest.approx(len(said), abs=1)


def test_the_metric_is_the_same_figure():
    """By the loss of each target and the characters of each token."""
    task = tasks.text(PARTS, batch=B, T=T, tokenizer=of_tiktoken())
    part, metric = task.text.held_out, task.metrics["bits per character"]
    n, losses = part.windows, np.linspace(0.5, 2, part.windows)
    nats, characters = [], []
    for i, item in enumerate(task.held_out.read(0, n).tokens):
        targets = item[1:]
        logits = np.zeros((*targets.shape, task.n_out), np.float32)
        found = metric.each(logits, targets.astype(np.int32))
        np.testing.assert_allclose(found["nats"], np.log(task.n_out), rtol=1e-5)
        characters.append(np.mean(found["characters"]))
        nats.append(losses[i])
    mean = dict(nats=np.mean(nats), characters=np.mean(characters))
    assert metric.finish(mean) == pytest.approx(tasks.bits(part, losses), rel=1e-5)


def test_a_long_text_is_encoded_in_pieces_that_end_with_lines():
    from bptt_jax.tasks._tokenizers import stretches

    for text in (TEXT, "word " * 400, "漢" * 1000, "ab\n" * 30, "a" * 64 + " b"):
        pieces = list(stretches(text, 64))
        assert "".join(pieces) == text
        assert max(map(len, pieces)) <= 64
        assert "" not in pieces
    assert all(piece.endswith("\n") for piece in stretches("ab\n" * 90, 64))


def test_what_can_write_itself_is_kept_and_read_again(tokenizer, tmp_path):
    text = tasks.by_tokenizer(tokenizer)
    assert tasks.read_tokenizer(tmp_path) is None
    if isinstance(tokenizer, tiktoken.Encoding):
        assert text.written is None  # never by pickle
        return
    name, content = text.written()
    (tmp_path / name).write_bytes(content)
    again = tasks.by_tokenizer(tasks.read_tokenizer(tmp_path))
    np.testing.assert_array_equal(again.encode("the é"), text.encode("the é"))
    assert again.written() == (name, content)
    (tmp_path / name).write_bytes(content[:20])
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        tasks.read_tokenizer(tmp_path)


@pytest.mark.slow
def test_a_run_keeps_its_tokenizer(tmp_path):
    task = tasks.text(PARTS, batch=B, T=T, tokenizer=of_sentencepiece())
    model = models.symbols(task.n_in, 4, (cells.elman(4, 4),), task.n_out, 4)
    estimator = estimators.stream(model, task.objective)
    options = train.RunOptions(updates=2, final_batches=2)
    for _ in range(2):  # one that goes on writes nothing
        done = train.run(task, model, estimator, optax.sgd(0.1), options, tmp_path)
    assert set(done.metrics) == {"loss", "bits per character", "perplexity"}
    assert tasks.read_tokenizer(tmp_path).encode("the cat") == list(
        task.text.encode("the cat")
    )
    run = train.load(tmp_path)
    np.testing.assert_array_equal(
        run.task.text.encode("the cat"), task.text.encode("the cat")
    )
    assert len((tmp_path / "run.json").read_text()) < len(TEXT)  # the text is not in it
    other = tasks.text(PARTS, batch=B, T=T, tokenizer=of_tiktoken())
    model = models.symbols(other.n_in, 4, (cells.elman(4, 4),), other.n_out, 4)
    estimator = estimators.stream(model, other.objective)
    train.run(
        other, model, estimator, optax.sgd(0.1), options, tmp_path, overwrite=True,
        progress=train.Progress(message=lambda text: None),
    )  # fmt: skip
    assert tasks.read_tokenizer(tmp_path) is None
    assert tasks.read_tokenizer(tmp_path / "before-1") is not None
    assert train.load(tmp_path).task.text is None
    text = train.load(tmp_path, tokenizer=of_tiktoken()).task.text
    assert text.decode(text.encode("naïve 😀")) == "naïve 😀"


def test_who_lacks_the_library_is_told_which(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tokenizers"):
        tasks.read_tokenizer(tmp_path)


def test_the_corpora_of_this_library_by_a_tokenizer(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    corpus = tasks.file_corpus(tmp_path / "text.txt")
    task = tasks.text(corpus, batch=B, T=T, tokenizer=of_tiktoken())
    both = task.text.train, task.text.held_out
    said = [task.text.decode(part.tokens(0, part.length)) for part in both]
    assert "".join(said) == TEXT
    letters = np.array([1, 2, 0, 1] * 50, np.uint8)
    table = np.arange(256, dtype=np.uint8)
    corpus = tasks.Corpus(letters, letters, table, ("\ufffd", "a", "漢"), {})
    task = tasks.text(corpus, batch=1, T=T, tokenizer=of_tiktoken())
    part = task.text.train
    assert task.text.decode(part.tokens(0, part.length)) == "a漢\ufffda" * 50


def test_a_task_is_pickled_and_shown_by_how_it_was_made():
    task = tasks.text(PARTS, batch=B, T=T, tokenizer=of_tokenizers())
    again = pickle.loads(pickle.dumps(task))
    np.testing.assert_array_equal(
        again.train.read(3, 1).tokens, task.train.read(3, 1).tokens
    )
    assert len(repr(tasks.text(TEXT, batch=B, T=T))) < 200


def test_a_text_without_a_tokenizer():
    task = tasks.text(TEXT, batch=1, T=T)
    part = task.text.held_out
    said = task.text.decode(part.tokens(0, part.length))
    assert TEXT.endswith(said)
    assert part.length == pytest.approx(len(TEXT) / 20, abs=1)
    assert task.text.symbol == "character"
    other = tasks.text(PARTS, batch=1, T=T)
    assert other.text.decode(other.text.train.tokens(0, 100)) == TEXT[:100]


class Letters:
    """Bytes, and what a test changes."""

    n_vocab = 256

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


def letters(**changed):
    made = type("Letters", (Letters,), changed)()
    return made


@pytest.mark.parametrize(
    ("said", "n"),
    [
        (dict(vocab_size=300), 256),
        (dict(n_vocab=None, vocab_size=300), 300),
        (dict(n_vocab=None, vocab_size=lambda self: 301), 301),
        (dict(get_vocab_size=lambda self: 302), 302),
    ],
)
def test_how_many_symbols_there_are(said, n):
    task = tasks.text(TEXT, batch=1, T=T, tokenizer=letters(**said))
    assert task.n_in == n
    task = tasks.text(TEXT, batch=1, T=T, tokenizer=letters(**said), n_symbols=1000)
    assert task.n_out == 1000


def test_ids_may_be_an_attribute_and_the_smallest_integers_hold_them():
    wrapped = letters(
        encode=lambda self, text: types.SimpleNamespace(ids=[*text.encode()])
    )
    task = tasks.text(TEXT, batch=1, T=T, tokenizer=wrapped)
    assert task.train.read(0, 1).tokens.dtype == np.uint8
    task = tasks.text(TEXT, batch=1, T=T, tokenizer=wrapped, n_symbols=50_000)
    assert task.train.read(0, 1).tokens.dtype == np.uint16


@pytest.mark.parametrize(
    ("corpus", "given", "words"),
    [
        ("", {}, "corpus: expected some text, got none"),
        (("", ""), {}, "corpus: expected some text, got none"),
        (TEXT.encode(), {}, "corpus: expected a text, .* got bytes"),
        (TEXT[:20], {}, "text too short: the held-out part has 1 symbols"),
        (TEXT, dict(decode=None), "encode and decode, got Letters without decode"),
        (TEXT, dict(encode=None), "encode and decode, got Letters without encode"),
        (TEXT, dict(n_vocab=None), "Letters says by none of .*; give n_symbols="),
        (
            TEXT,
            dict(n_vocab=100),
            r"ids from 0 to 99 \(n_symbols = 100\), got 1\d\d at \[",
        ),
        (
            TEXT,
            dict(encode=lambda self, text: ["a"]),
            "expected a list of ids.*got list",
        ),
        (TEXT, dict(encode=lambda self, text: [1.5]), "list of ids.*got list of float"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(corpus, given, words):
    with pytest.raises((TypeError, ValueError), match=words) as told:
        tasks.text(corpus, batch=1, T=T, tokenizer=letters(**given))
    assert "\n" not in str(told.value)


def test_options_that_do_not_go_together():
    with pytest.raises(ValueError, match="n_symbols: goes with a tokenizer"):
        tasks.text(TEXT, batch=1, n_symbols=10)
    with pytest.raises(ValueError, match="n_symbols must be a whole number"):
        tasks.text(TEXT, batch=1, tokenizer=letters(), n_symbols=0)
    with pytest.raises(ValueError, match="corpus: expected some text"):
        tasks.text("", batch=1)


def test_an_empty_file_has_no_text(tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"empty\.txt is empty"):
        tasks.text(
            tasks.file_corpus(tmp_path / "empty.txt"), batch=1, tokenizer=letters()
        )


def test_counting_tokens_is_a_baseline(tmp_path):
    task = tasks.text(PARTS, batch=B, T=T, tokenizer=of_tiktoken())
    each = tasks.ngram_baseline(task, tmp_path, order=3)
    part = task.text.held_out
    per_character = tasks.ngram_bits_per_character(task, tmp_path, order=3)
    shorter = each * (part.length - 2) / len(PARTS[1])
    assert per_character == pytest.approx(shorter, rel=0.01)
