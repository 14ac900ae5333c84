"""Text of a run: several at once, in pieces, up to a stop."""

import functools

import jax
import numpy as np
import pytest

from bptt_jax import cells, models, tasks, train
from support.training import adding

LETTERS = "\ufffdabcd"
BYTES = "\xff" + "".join(map(chr, (97, 98, 0xCE, 0xB1, 0xE2, 0x82, 0xAC)))


@functools.cache
def run(symbols=LETTERS, in_bytes=False) -> train.Run:
    """Of random parameters, so that it writes all kinds of things."""
    n = len(symbols)
    letters = np.random.default_rng(0).integers(0, n, (2, 300)).astype(np.uint8)
    record = dict(encoding="bytes") if in_bytes else {}
    table = np.arange(256, dtype=np.uint8)
    corpus = tasks.Corpus(*letters, table, tuple(symbols), record)
    task = tasks.text(corpus, batch=2, T=6)
    model = models.symbols(n, 4, cells.gru(4, 8), n, 8)
    params = jax.tree.map(lambda a: 2 * a, model.init(jax.random.key(1)))
    best = train.Best(params, 0, 0.0)
    return train.Run(None, 0.0, False, best, model=model, task=task)


WAYS = [
    dict(),
    dict(temperature=1.0, seed=3),
    dict(temperature=0),
    dict(temperature=1.0, top_k=2, top_p=0.9),
    dict(temperature=1.0, stop="cd"),
    dict(temperature=1.0, stop=("bb", "dcb", "a")),
]


@pytest.mark.parametrize("way", WAYS)
def test_pieces_are_the_whole(way):
    whole = run().generate("ab", 30, **way)
    pieces = list(run().stream("ab", 30, **way))
    assert "".join(pieces) == whole
    assert len(whole) == 30 or "stop" in way
    assert all(pieces)


@pytest.mark.parametrize("seed", range(4))
def test_characters_of_several_bytes(seed):
    """None is told before its last byte is there; an invalid one is told in the end."""
    made = run(BYTES, True)
    assert made.task.text.most > 1
    way = dict(temperature=1.0, seed=seed)
    whole = made.generate("α", 20, **way)
    assert len(whole) == 20
    assert "".join(made.stream("α", 20, **way)) == whole


def test_a_stop_ends_before_the_first():
    whole = run().generate("ab", 60, temperature=1.0)
    stop = whole[20:22]
    assert run().generate("ab", 60, temperature=1.0, stop=stop) == whole.split(stop)[0]
    both = run().generate("ab", 60, temperature=1.0, stop=[whole[40:43], stop])
    assert both == min(whole.split(stop)[0], whole.split(whole[40:43])[0], key=len)


def test_of_two_stops_the_one_that_begins_first():
    """Though the other is there before it has ended."""
    whole = run().generate("ab", 60, temperature=1.0)
    at = whole.index("a")
    way = dict(temperature=1.0, stop=(whole[at - 3 : at + 2], "a"))
    assert run().generate("ab", 60, **way) == whole[: at - 3]
    assert "".join(run().stream("ab", 60, **way)) == whole[: at - 3]


def test_several_prompts():
    """Greedily each is what follows it alone."""
    prompts = ["a", "abcda", "dd"]
    found = run().generate(prompts, 12, temperature=0)
    assert found == [run().generate(p, 12, temperature=0) for p in prompts]


def test_the_seed_is_all_that_is_random():
    one, other = (run().generate("ab", 40, seed=s, temperature=1.0) for s in (0, 1))
    assert one != other
    assert run().generate("ab", 40, seed=1, temperature=1.0) == other


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("", 5), {}, "prompt: expected some text, got none"),
        ((["a", ""], 5), {}, r"got none \(of number 1\)"),
        ((3, 5), {}, "not iterable|prompt: expected text"),
        ((["a", 3], 5), {}, "prompt: expected text, got int"),
        (("a", 0), {}, "length must be a whole number of at least 1, got 0"),
        (("a",), dict(temperature=-1), "temperature: expected at least 0"),
        (("a",), dict(top_k=0), "top_k: expected a whole number"),
        (("a",), dict(top_p=2), "top_p: expected a number in"),
        (("a",), dict(stop=("b", "")), "stop: expected texts of at least a character"),
    ],
)
def test_what_is_refused(arguments, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run().generate(*arguments, **options)


def test_a_run_on_numbers_writes_nothing():
    job = adding()
    best = train.Best((), 0, 0.0)
    made = train.Run(None, 0.0, False, best, model=job.model, task=job.task)
    with pytest.raises(ValueError, match="expected a run on text"):
        made.generate("a")
    with pytest.raises(ValueError, match="expected a run on text"):
        made.stream("a")
